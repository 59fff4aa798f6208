import CKernels
import Foundation
import TensorCore
import Testing

@Suite struct KernelElementwiseTests {
    static let counts = [1, 15, 16, 37, 1000, 40_003]

    @Test func castRoundsToNearestEven() {
        var values: [Float] = [
            0, -0, 1, 1.00390625, 1.01171875, 3.4e38, .infinity, -.infinity, 1e-37, .leastNonzeroMagnitude,
            Float(bitPattern: 0x3F80_8000), Float(bitPattern: 0x3F81_8000), Float(bitPattern: 0x7F7F_FFFF),
        ]
        var random = CounterRandom(seed: 1, purpose: .test)
        values += (0..<999).map { _ in Float(bitPattern: random.next()) }
        let x = KernelBuffer(CK_F32, values)
        let y = KernelBuffer(CK_BF16, count: values.count)
        ck_cast(CK_F32, CK_BF16, values.count, x.pointer, y.pointer)
        #expect(y.bytes == KernelBuffer(CK_BF16, values).bytes)

        let back = KernelBuffer(CK_F32, count: values.count)
        ck_cast(CK_BF16, CK_F32, values.count, y.pointer, back.pointer)
        #expect(back.bytes == KernelBuffer(CK_F32, y.values).bytes)
    }

    @Test func castKeepsNaN() {
        // Rounding alone would turn a NaN whose payload is in the lower half into an infinity.
        let values = [Float(bitPattern: 0x7F80_0001), Float(bitPattern: 0xFFFF_FFFF), .nan]
        let x = KernelBuffer(CK_F32, values)
        let y = KernelBuffer(CK_BF16, count: 3)
        ck_cast(CK_F32, CK_BF16, 3, x.pointer, y.pointer)
        #expect(y.values.allSatisfy { $0.isNaN })
    }

    @Test(arguments: Element.allCases) func castToTheSameTypeCopies(_ element: Element) {
        let x = KernelBuffer(element.dtype, normal: 1001, seed: 2)
        let y = KernelBuffer(element.dtype, count: 1001)
        ck_cast(element.dtype, element.dtype, 1001, x.pointer, y.pointer)
        #expect(x.bytes == y.bytes && y.guardHolds)
    }

    @Test(arguments: Element.allCases, counts) func fillAndAdd(_ element: Element, _ n: Int) {
        let dtype = element.dtype
        let a = KernelBuffer(dtype, normal: n, seed: 3)
        let b = KernelBuffer(dtype, normal: n, seed: 4)
        let y = KernelBuffer(dtype, count: n)
        ck_fill(dtype, n, 1.5, y.pointer)
        #expect(y.values.allSatisfy { $0 == 1.5 } && y.guardHolds)

        let sum = zip(a.exact, b.exact).map { 0.5 * $0 - 2 * $1 }
        ck_add(dtype, n, 0.5, a.pointer, -2, b.pointer, y.pointer)
        expectClose(y, sum, "a and b")
        let alone = a.exact.map { 3 * $0 }
        ck_add(dtype, n, 3, a.pointer, 0, nil, y.pointer)
        expectClose(y, alone, "a alone")
        let intoA = a.copy()
        ck_add(dtype, n, 0.5, intoA.pointer, -2, b.pointer, intoA.pointer)
        expectClose(intoA, sum, "into a")
        let intoB = b.copy()
        ck_add(dtype, n, 0.5, a.pointer, -2, intoB.pointer, intoB.pointer)
        expectClose(intoB, sum, "into b")
    }

    @Test(arguments: Element.allCases, counts) func siluForward(_ element: Element, _ n: Int) {
        let x = KernelBuffer(element.dtype, normal: n, seed: 5, std: 4)
        let expected = x.exact.map { $0 / (1 + exp(-$0)) }
        let y = KernelBuffer(element.dtype, count: n)
        ck_silu_forward(element.dtype, n, x.pointer, y.pointer)
        expectClose(y, expected, tolerance: Self.exponential, scale: 1e-3)
        ck_silu_forward(element.dtype, n, x.pointer, x.pointer)
        expectClose(x, expected, tolerance: Self.exponential, scale: 1e-3, "in place")
    }

    @Test func siluAtTheEndsOfTheRange() {
        let x = KernelBuffer(CK_F32, [-3e38, -200, -87, -30, 0, 30, 87, 200, 3e38, .infinity, .nan])
        let y = KernelBuffer(CK_F32, count: x.count)
        ck_silu_forward(CK_F32, x.count, x.pointer, y.pointer)
        #expect(abs(y[0]) < 2 && abs(y[1]) < 1e-30 && abs(y[2]) < 1e-30)
        #expect(abs(y[3] + 30 * exp(-30)) < 1e-17)
        #expect(y[4] == 0 && y[5] == 30 && y[6] == 87 && y[7] == 200 && y[8] == 3e38 && y[9] == .infinity)
        #expect(y[10].isNaN)
    }

    /// sigmoid(x) = silu(x)/x: compares the polynomial exp with the exact one over the relevant range.
    @Test func exponentialIsAccurate() {
        let points = (0...20_000).map { -20 + Float($0) / 500 }.filter { $0 != 0 }
        let x = KernelBuffer(CK_F32, points)
        let y = KernelBuffer(CK_F32, count: points.count)
        ck_silu_forward(CK_F32, points.count, x.pointer, y.pointer)
        expectClose(y, x.exact.map { $0 / (1 + exp(-$0)) }, tolerance: Self.exponential, scale: 0)
    }

    /// The error bound of `ck_exp` with fused multiply-add, which all supported processors with 256-bit
    /// vectors have, and without.
    private static let exponential = ck_vector_bits() >= 256 ? 3e-7 : 1e-6

    @Test(arguments: Element.allCases, Addend.allCases)
    func siluBackward(_ element: Element, _ addend: Addend) {
        for n in Self.counts {
            let x = KernelBuffer(element.dtype, normal: n, seed: 6, std: 4)
            let gy = KernelBuffer(element.dtype, normal: n, seed: 7)
            let (gx, added, addedValues) = addend.make(element.dtype, n)
            ck_silu_backward(element.dtype, n, x.pointer, gy.pointer, added?.pointer, gx.pointer)
            let expected = (0..<n).map { index in
                let v = Double(x[index])
                let s = 1 / (1 + exp(-v))
                return Double(gy[index]) * s * (1 + v * (1 - s)) + addedValues[index]
            }
            expectClose(gx, expected)
        }
    }
}
