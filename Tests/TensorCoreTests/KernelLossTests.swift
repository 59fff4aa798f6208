import CKernels
import Foundation
import Testing

@Suite struct KernelLossTests {
    @Test(arguments: Element.allCases, [(1, 1), (3, 37), (2, 5000), (1, 100_003)])
    func errors(_ element: Element, _ shape: (Int, Int)) {
        let (B, n) = shape
        let dtype = element.dtype
        let x = KernelBuffer(dtype, normal: B * n, seed: 1)
        let target = KernelBuffer(CK_F32, normal: B * n, seed: 2)
        target[0] = x[0]  // the kink of the absolute error
        let weight = KernelBuffer(CK_F32, (0..<B).map { 0.5 + Float($0) })
        for absolute in [false, true] {
            for weighted in [false, true] {
                var loss = [Double](repeating: -1, count: B)
                let gx = KernelBuffer(dtype, count: B * n)
                let call = absolute ? ck_absolute_error : ck_squared_error
                call(dtype, B, n, x.pointer, target.floats, weighted ? weight.floats : nil, &loss, gx.pointer)
                var expectedLoss = [Double](repeating: 0, count: B)
                let expected = (0..<B * n).map { index in
                    let d = Double(x[index]) - Double(target[index])
                    let w = weighted ? Double(weight[index / n]) : 1
                    expectedLoss[index / n] += absolute ? abs(d) : d * d
                    return absolute ? (d > 0 ? w : d < 0 ? -w : 0) : 2 * d * w
                }
                expectClose(gx, expected)
                for b in 0..<B { #expect(abs(loss[b] - expectedLoss[b]) <= 1e-6 * max(expectedLoss[b], 1)) }
                var again = loss
                call(dtype, B, n, x.pointer, target.floats, weight.floats, &again, nil)
                #expect(again == loss)  // the loss itself is not weighted
            }
        }
    }

    @Test func errorsPassNaNOn() {
        for call in [ck_squared_error, ck_absolute_error] {
            var loss = [0.0]
            let gx = KernelBuffer(CK_F32, count: 2)
            call(CK_F32, 1, 2, [Float.nan, 1], [0, 0], nil, &loss, gx.pointer)
            #expect(loss[0].isNaN && gx[0].isNaN)
        }
    }

    @Test(arguments: Element.allCases) func gaussian(_ element: Element) {
        for (B, P, C) in [(1, 1, 1), (2, 33, 4), (1, 5, 20)] {
            let dtype = element.dtype
            let moments = KernelBuffer(dtype, normal: B * P * 2 * C, seed: 1, std: 2)
            moments[C] = -40  // logvar below the lower limit
            if P > 1 { moments[2 * C + C] = 25 }  // and above the upper limit
            let noise = KernelBuffer(CK_F32, normal: B * P * C, seed: 2)
            let gz = KernelBuffer(dtype, normal: B * P * C, seed: 3)
            let klWeight = 0.25
            var mean: [Double] = []
            var logvar: [Double] = []
            var inside: [Bool] = []
            for index in 0..<B * P * C {
                let at = index / C * 2 * C + index % C
                let raw = Double(moments[at + C])
                mean.append(Double(moments[at]))
                logvar.append(min(max(raw, -30), 20))
                inside.append(raw == logvar[index])
            }
            let z = KernelBuffer(dtype, count: B * P * C)
            ck_gaussian_sample_forward(dtype, B, P, C, moments.pointer, noise.floats, z.pointer)
            expectClose(z, mean.indices.map { mean[$0] + exp(logvar[$0] / 2) * Double(noise[$0]) }, "z")
            ck_gaussian_sample_forward(dtype, B, P, C, moments.pointer, nil, z.pointer)
            expectClose(z, mean, "mean")

            var kl = [Double](repeating: -1, count: B)
            ck_gaussian_kl(dtype, B, P, C, moments.pointer, &kl)
            for b in 0..<B {
                var expected = 0.0
                for index in b * P * C..<(b + 1) * P * C {
                    expected += (mean[index] * mean[index] + exp(logvar[index]) - 1 - logvar[index]) / 2
                }
                #expect(abs(kl[b] - expected) <= 1e-6 * expected)
            }

            for noisy in [false, true] {
                let gmoments = KernelBuffer(dtype, count: moments.count)
                ck_gaussian_sample_backward(
                    dtype, B, P, C, moments.pointer, noisy ? noise.floats : nil, gz.pointer, Float(klWeight),
                    gmoments.pointer)
                var expected = [Double](repeating: 0, count: moments.count)
                for index in mean.indices {
                    let at = index / C * 2 * C + index % C
                    expected[at] = Double(gz[index]) + klWeight * mean[index]
                    guard inside[index] else { continue }
                    let drawn = noisy ? Double(noise[index]) * exp(logvar[index] / 2) / 2 : 0
                    expected[at + C] = Double(gz[index]) * drawn + klWeight * (exp(logvar[index]) - 1) / 2
                }
                expectClose(gmoments, expected, "gmoments")
            }
        }
    }
}
