import CKernels
import TensorCore
import Testing

/// Memory for one kernel operand, of either element type. It is never freed: kernels take raw pointers, which
/// do not keep an owner alive until a call returns.
struct KernelBuffer {
    let dtype: ck_dtype
    let count: Int
    let pointer: UnsafeMutableRawPointer

    var size: Int { dtype == CK_BF16 ? 2 : 4 }
    /// The memory as fp32; for fp32 buffers only.
    var floats: UnsafeMutablePointer<Float> {
        precondition(dtype == CK_F32)
        return pointer.assumingMemoryBound(to: Float.self)
    }

    /// Zeros, followed by guard bytes that `guardHolds` checks.
    init(_ dtype: ck_dtype, count: Int) {
        self.dtype = dtype
        self.count = count
        pointer = .allocate(byteCount: count * 4 + Self.guardBytes, alignment: 64)
        pointer.initializeMemory(as: UInt8.self, repeating: 0, count: count * 4 + Self.guardBytes)
        (pointer + count * size).initializeMemory(as: UInt8.self, repeating: 0xA5, count: Self.guardBytes)
    }

    init(_ dtype: ck_dtype, _ values: [Float]) {
        self.init(dtype, count: values.count)
        for (index, value) in values.enumerated() { self[index] = value }
    }

    /// Normally distributed numbers, rounded to the element type.
    init(_ dtype: ck_dtype, normal count: Int, seed: UInt64, mean: Float = 0, std: Float = 1) {
        var random = CounterRandom(seed: seed, purpose: .test)
        self.init(dtype, (0..<count).map { _ in mean + std * random.normal() })
    }

    private static let guardBytes = 64

    subscript(index: Int) -> Float {
        get {
            if dtype == CK_F32 { return pointer.load(fromByteOffset: index * 4, as: Float.self) }
            let bits = pointer.load(fromByteOffset: index * 2, as: UInt16.self)
            return Float(bitPattern: UInt32(bits) << 16)
        }
        nonmutating set {
            if dtype == CK_F32 {
                pointer.storeBytes(of: newValue, toByteOffset: index * 4, as: Float.self)
            } else {
                pointer.storeBytes(of: Self.bfloat16(newValue), toByteOffset: index * 2, as: UInt16.self)
            }
        }
    }

    /// Round to nearest, ties to even, with explicit cases: the reference for the kernels' bit manipulation.
    static func bfloat16(_ value: Float) -> UInt16 {
        let upper = UInt16(truncatingIfNeeded: value.bitPattern >> 16)
        if value.isNaN { return upper | 0x40 }
        let rest = value.bitPattern & 0xFFFF
        let up = rest > 0x8000 || (rest == 0x8000 && upper % 2 == 1)
        return up ? upper + 1 : upper
    }

    var values: [Float] { (0..<count).map { self[$0] } }
    /// The values in double precision, for references.
    var exact: [Double] { (0..<count).map { Double(self[$0]) } }
    var bytes: [UInt8] { Array(UnsafeRawBufferPointer(start: pointer, count: count * size)) }

    func copy() -> KernelBuffer {
        let other = KernelBuffer(dtype, count: count)
        other.pointer.copyMemory(from: pointer, byteCount: count * size)
        return other
    }

    /// Whether nothing was written past the end.
    var guardHolds: Bool {
        UnsafeRawBufferPointer(start: pointer + count * size, count: Self.guardBytes).allSatisfy {
            $0 == 0xA5
        }
    }
}

/// Expects each element to be within `tolerance` of the reference (relative to the larger of |expected| and
/// `scale`), plus half a unit in the last place of the buffer's type, plus `slack` if given.
func expectClose(
    _ found: KernelBuffer, _ expected: [Double], tolerance: Double = 2e-6, scale: Double = 1,
    slack: [Double] = [], _ what: String = "", sourceLocation: SourceLocation = #_sourceLocation
) {
    #expect(found.count == expected.count, sourceLocation: sourceLocation)
    #expect(found.guardHolds, "\(what): written past the end", sourceLocation: sourceLocation)
    let rounding = found.dtype == CK_BF16 ? 0x1p-8 : 0x1p-23
    var worst = 0.0
    var worstIndex = 0
    for (index, reference) in expected.enumerated() {
        let error = abs(Double(found[index]) - reference)
        var allowed = tolerance * max(abs(reference), scale) + rounding * abs(reference)
        if !slack.isEmpty { allowed += slack[index] }
        let ratio = error <= allowed ? error / max(allowed, .leastNormalMagnitude) : max(error / allowed, 2)
        if ratio > worst || ratio.isNaN {
            worst = ratio.isNaN ? .infinity : ratio
            worstIndex = index
        }
    }
    #expect(
        worst <= 1,
        "\(what)[\(worstIndex)]: found \(found[worstIndex]), expected \(expected[worstIndex])",
        sourceLocation: sourceLocation)
}

/// The ways to pass an addend.
enum Addend: CaseIterable, Sendable {
    case none, separate, aliased

    /// The output buffer, the addend's pointer, and its values, for a result of `count` elements.
    func make(_ dtype: ck_dtype, _ count: Int) -> (
        output: KernelBuffer, addend: KernelBuffer?, values: [Double]
    ) {
        let added = KernelBuffer(dtype, normal: count, seed: 77)
        switch self {
        case .none: return (KernelBuffer(dtype, count: count), nil, Array(repeating: 0, count: count))
        case .separate: return (KernelBuffer(dtype, count: count), added, added.exact)
        case .aliased: return (added, added, added.exact)
        }
    }
}

/// ck_dtype for `@Test(arguments:)`.
enum Element: CaseIterable, Sendable {
    case fp32, bf16
    var dtype: ck_dtype { self == .fp32 ? CK_F32 : CK_BF16 }
}
