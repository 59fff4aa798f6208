import CKernels
import Foundation
import Testing

@Suite struct KernelOptimizerTests {
    /// Five steps of torch.optim.AdamW(lr=2e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01).
    @Test(arguments: [1.0, 0.25]) func adamWFollowsPyTorch(gradientScale: Double) {
        let gradients: [[Float]] = [
            [0.1, -0.2, 3.0, 0.0, 1e-6, -50.0], [0.3, 0.1, -1.0, 1e-9, 2e-6, 20.0],
            [-0.2, 0.4, 0.5, 0.0, -1e-6, 5.0], [0.05, 0.0, 0.25, 2e-9, 3e-6, -5.0],
            [0.7, -0.6, -2.0, 0.0, 1e-6, 1.0],
        ]
        let copies = 7  // 42 elements: full vectors and a remainder
        func repeated(_ values: [Float]) -> [Float] { (0..<copies).flatMap { _ in values } }
        let w = KernelBuffer(CK_F32, repeated([0.5, -1.25, 2.0, 0.0, -0.003, 10.0]))
        let m = KernelBuffer(CK_F32, count: w.count)
        let v = KernelBuffer(CK_F32, count: w.count)
        for (index, gradient) in gradients.enumerated() {
            // The kernel multiplies by the scale: exact for a power of two.
            let g = KernelBuffer(CK_F32, repeated(gradient.map { $0 / Float(gradientScale) }))
            var settings = ck_adamw(
                lr: 2e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0.01,
                gradientScale: gradientScale, biasCorrection1: 1 - pow(0.9, Double(index + 1)),
                biasCorrection2: 1 - pow(0.999, Double(index + 1)))
            ck_adamw_step(&settings, w.count, w.floats, g.floats, m.floats, v.floats)
        }
        let expectedW: [Float] = [
            0.493835866, -1.24852288, 1.99547362, -0.000420353521, -0.0104192672, 10.0029039,
        ]
        let expectedM: [Float] = [
            0.0867310017, -0.0334320031, -0.013069991, 2.52900006e-10, 5.0041001e-07, -1.76750004,
        ]
        let expectedV: [Float] = [
            0.000632107898, 0.000569490483, 0.0142729953, 4.99300314e-21, 1.59730221e-14, 2.93974137,
        ]
        expectClose(w, repeated(expectedW).map(Double.init), tolerance: 3e-7, scale: 1e-3, "w")
        expectClose(m, repeated(expectedM).map(Double.init), tolerance: 2e-6, scale: 0, "m")
        expectClose(v, repeated(expectedV).map(Double.init), tolerance: 5e-7, scale: 0, "v")
    }

    @Test(arguments: [0, 1, 17, 4096, 50_001, 5_000_000]) func sumOfSquares(n: Int) {
        let g = KernelBuffer(CK_F32, normal: n, seed: 1, std: 3)
        let expected = g.exact.reduce(0) { $0 + $1 * $1 }
        #expect(abs(ck_sum_of_squares(n, g.floats) - expected) <= 1e-12 * expected)
    }

    @Test func sumOfSquaresTellsWhatIsNotFinite() {
        // 3e38 squared overflows fp32 but not double.
        let large = KernelBuffer(CK_F32, Array(repeating: 3e38, count: 1000))
        #expect(ck_sum_of_squares(1000, large.floats).isFinite)
        for bad in [Float.nan, .infinity, -.infinity] {
            for position in [0, 500, 999] {
                let g = KernelBuffer(CK_F32, normal: 1000, seed: 1)
                g[position] = bad
                #expect(!ck_sum_of_squares(1000, g.floats).isFinite)
            }
        }
    }

    @Test func averageAndScale() {
        for n in [1, 37, 40_001] {
            let w = KernelBuffer(CK_F32, normal: n, seed: 1)
            let average = KernelBuffer(CK_F32, normal: n, seed: 2)
            let decay = Double(Float(0.9999))
            let expected = zip(average.exact, w.exact).map { decay * $0 + (1 - decay) * $1 }
            ck_ema_update(n, Float(decay), w.floats, average.floats)
            expectClose(average, expected, tolerance: 1e-7)
            let scaled = w.exact.map { $0 * 0.3 }
            ck_scale(n, 0.3, w.floats)
            expectClose(w, scaled, tolerance: 1e-7)
        }
    }

    @Test func hashSeesEveryBit() {
        let bytes = (0..<83).map { UInt8(truncatingIfNeeded: $0 &* 37) }
        let hash = ck_hash(bytes.count, bytes)
        #expect(hash == ck_hash(bytes.count, bytes))
        var seen: Set<UInt64> = [hash]
        for bit in 0..<bytes.count * 8 {
            var changed = bytes
            changed[bit / 8] ^= 1 << (bit % 8)
            seen.insert(ck_hash(changed.count, changed))
        }
        #expect(seen.count == bytes.count * 8 + 1)
        // Two flipped sign bits, which would cancel in plain FNV.
        var floats: [Float] = [1, 2, 3, 4, 5, 6]
        let before = ck_hash(24, floats)
        floats[1] = -2
        floats[3] = -4
        #expect(ck_hash(24, floats) != before)
    }
}
