import CKernels

// A convolution in double precision, written as its definition, and support for calling the kernels.
// B images of H×W pixels with C channels in and O out; all tensors are NHWC, weights are OIHW.

extension ck_conv_shape {
    /// `pad` is (top, left, bottom, right).
    init(
        _ B: Int, _ H: Int, _ W: Int, _ C: Int, _ O: Int, kernel: (Int, Int), stride: Int = 1,
        pad: (Int, Int, Int, Int) = (0, 0, 0, 0), dtype: ck_dtype = CK_F32, weights: ck_dtype = CK_F32
    ) {
        self.init(
            B: B, H: H, W: W, C: C, O: O, kernelH: kernel.0, kernelW: kernel.1, stride: stride,
            padTop: pad.0, padLeft: pad.1, padBottom: pad.2, padRight: pad.3, dtype: dtype,
            weights: weights)
    }

    var outputHeight: Int { (H + padTop + padBottom - kernelH) / stride + 1 }
    var outputWidth: Int { (W + padLeft + padRight - kernelW) / stride + 1 }
    var inputCount: Int { B * H * W * C }
    var outputCount: Int { B * outputHeight * outputWidth * O }
    var weightCount: Int { O * C * kernelH * kernelW }
}

/// A sum, and the sum of the magnitudes of its terms, which bounds the rounding error.
struct Sum {
    var value = 0.0
    var magnitude = 0.0

    mutating func add(_ term: Double) {
        value += term
        magnitude += abs(term)
    }
}

/// The results of the definition: y [B, OH, OW, O], gx [B, H, W, C], gw [O, C, KH, KW], gb [O].
struct ConvReference {
    var y: [Sum]
    var gx: [Sum]
    var gw: [Sum]
    var gb: [Sum]

    init(_ s: ck_conv_shape, x: [Float], weights: [Float], bias: [Float], gy: [Float]) {
        y = Array(repeating: Sum(), count: s.outputCount)
        gx = Array(repeating: Sum(), count: s.inputCount)
        gw = Array(repeating: Sum(), count: s.weightCount)
        gb = Array(repeating: Sum(), count: s.O)
        for b in 0..<s.B {
            for oh in 0..<s.outputHeight {
                for ow in 0..<s.outputWidth {
                    for o in 0..<s.O {
                        let output = ((b * s.outputHeight + oh) * s.outputWidth + ow) * s.O + o
                        y[output].add(Double(bias[o]))
                        gb[o].add(Double(gy[output]))
                        for kh in 0..<s.kernelH {
                            for kw in 0..<s.kernelW {
                                let h = oh * s.stride - s.padTop + kh
                                let w = ow * s.stride - s.padLeft + kw
                                guard h >= 0, h < s.H, w >= 0, w < s.W else { continue }
                                for c in 0..<s.C {
                                    let input = ((b * s.H + h) * s.W + w) * s.C + c
                                    let weight = ((o * s.C + c) * s.kernelH + kh) * s.kernelW + kw
                                    y[output].add(Double(x[input]) * Double(weights[weight]))
                                    gx[input].add(Double(gy[output]) * Double(weights[weight]))
                                    gw[weight].add(Double(x[input]) * Double(gy[output]))
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// 64-byte aligned memory of one element type, read and written as fp32.
final class Buffer {
    let pointer: UnsafeMutableRawPointer
    let count: Int
    let dtype: ck_dtype

    init(_ dtype: ck_dtype, count: Int) {
        self.dtype = dtype
        self.count = count
        let bytes = max(count, 1) * (dtype == CK_BF16 ? 2 : 4)
        pointer = .allocate(byteCount: bytes, alignment: 64)
        // Nonzero, to detect elements that are never written.
        pointer.initializeMemory(as: UInt8.self, repeating: 0x7f, count: bytes)
    }

    convenience init(_ dtype: ck_dtype, _ values: [Float]) {
        self.init(dtype, count: values.count)
        for (i, value) in values.enumerated() {
            if dtype == CK_BF16 {
                pointer.assumingMemoryBound(to: UInt16.self)[i] = UInt16(value.bitPattern >> 16)
            } else {
                floats[i] = value
            }
        }
    }

    /// Scratch or packed weights.
    convenience init(bytes: Int) { self.init(CK_F32, count: (bytes + 3) / 4) }

    deinit { pointer.deallocate() }

    var floats: UnsafeMutablePointer<Float> { pointer.assumingMemoryBound(to: Float.self) }

    var values: [Float] {
        (0..<count).map { i in
            dtype == CK_BF16
                ? Float(bitPattern: UInt32(pointer.assumingMemoryBound(to: UInt16.self)[i]) << 16) : floats[i]
        }
    }
}

/// Values in [−1, 1) that bf16 represents exactly, so that both types get the same inputs.
struct Draw {
    private var state: UInt64

    init(_ seed: UInt64) { state = seed &* 0x9E37_79B9_7F4A_7C15 | 1 }

    mutating func values(_ count: Int) -> [Float] {
        (0..<count).map { _ in
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Float(Int(state >> 57) - 64) / 64
        }
    }
}

/// The largest error relative to the allowed rounding error of the type; correct if at most 1.
///
/// - Parameter mixes: whether results share rounding errors, as within a Winograd tile: a result with
///   cancellation then has an error of the size of the mean result's.
func worstError(_ found: [Float], _ expected: [Sum], _ dtype: ck_dtype, mixes: Bool = false) -> Double {
    var worst = found.count == expected.count ? 0.0 : .infinity
    let mean = expected.reduce(0) { $0 + $1.magnitude } / Double(max(1, expected.count))
    for (a, b) in zip(found, expected) {
        // Accumulation is always fp32; a result stored as bf16 is rounded to 8 bits.
        let magnitude = mixes ? max(mean, b.magnitude) : b.magnitude
        let allowed = 4e-6 * magnitude + (dtype == CK_BF16 ? abs(b.value) / 256 : 0) + 1e-30
        let error = abs(Double(a) - b.value) / allowed
        if !(error <= worst) { worst = error }
    }
    return worst
}
