import CKernels
import Testing

/// Compares the kernels of inference-only networks with plain loops.
@Suite struct KernelWindowTests {
    struct Case: Sendable {
        let samples: Int
        let height: Int
        let width: Int
        let channels: Int
    }

    static let cases = [
        Case(samples: 1, height: 3, width: 3, channels: 1),
        Case(samples: 2, height: 5, width: 8, channels: 20),
        Case(samples: 3, height: 17, width: 4, channels: 33),
    ]

    /// Calls `body` with the values of the window around each output position, pixel by pixel and channel by
    /// channel.
    private func windows(
        _ x: KernelBuffer, _ test: Case, stride: Int, padding: Int, _ body: ([Double]) -> Double
    ) -> [Double] {
        let (H, W, C) = (test.height, test.width, test.channels)
        var result: [Double] = []
        for b in 0..<test.samples {
            for top in Swift.stride(from: -padding, through: H + padding - 3, by: stride) {
                for left in Swift.stride(from: -padding, through: W + padding - 3, by: stride) {
                    for c in 0..<C {
                        let inside = (0..<9).map { (top + $0 / 3, left + $0 % 3) }
                            .filter { (0..<H).contains($0.0) && (0..<W).contains($0.1) }
                        result.append(body(inside.map { Double(x[((b * H + $0.0) * W + $0.1) * C + c]) }))
                    }
                }
            }
        }
        return result
    }

    @Test(arguments: cases, [(1, 1), (2, 0), (1, 0)]) func maxPool(_ test: Case, _ way: (Int, Int)) {
        let (B, H, W, C) = (test.samples, test.height, test.width, test.channels)
        let x = KernelBuffer(CK_F32, normal: B * H * W * C, seed: 1)
        let expected = windows(x, test, stride: way.0, padding: way.1) { $0.max() ?? .nan }
        let y = KernelBuffer(CK_F32, count: expected.count)
        ck_max_pool3(B, H, W, C, way.0, way.1, x.floats, y.floats)
        expectClose(y, expected, tolerance: 0)
    }

    @Test(arguments: cases) func means(_ test: Case) {
        let (B, H, W, C) = (test.samples, test.height, test.width, test.channels)
        let x = KernelBuffer(CK_F32, normal: B * H * W * C, seed: 1)
        let y = KernelBuffer(CK_F32, count: x.count)
        ck_mean_pool3(B, H, W, C, x.floats, y.floats)
        expectClose(
            y, windows(x, test, stride: 1, padding: 1) { $0.reduce(0, +) / Double($0.count) })

        let mean = KernelBuffer(CK_F32, count: B * C)
        ck_image_mean(B, H, W, C, x.floats, mean.floats)
        expectClose(
            mean,
            (0..<B * C).map { at in
                (0..<H * W).reduce(0) { $0 + Double(x[(at / C * H * W + $1) * C + at % C]) } / Double(H * W)
            })
    }

    @Test func relu() {
        let parts = [5, 20].map { KernelBuffer(CK_F32, normal: 7 * $0, seed: UInt64($0)) }
        let y = KernelBuffer(CK_F32, count: 7 * 25)
        ck_place_columns_relu(7, 25, 0, 5, parts[0].floats, y.floats)
        ck_place_columns_relu(7, 25, 5, 20, parts[1].floats, y.floats)
        let expected = (0..<7 * 25).map { at in
            let (row, column) = (at / 25, at % 25)
            let value = column < 5 ? parts[0][row * 5 + column] : parts[1][row * 20 + column - 5]
            return max(0, Double(value))
        }
        expectClose(y, expected, tolerance: 0)
        ck_relu(parts[0].count, parts[0].floats, parts[0].floats)
        #expect(parts[0].values.allSatisfy { $0 >= 0 } && parts[0].guardHolds)
    }

    /// Pixel centers: output pixel i is at (i + ½)·from/to − ½ in the source, clamped to the border.
    @Test(arguments: cases, [(3, 3), (7, 11), (2, 1)]) func bilinear(_ test: Case, _ size: (Int, Int)) {
        let (B, H, W, C) = (test.samples, test.height, test.width, test.channels)
        let x = KernelBuffer(CK_F32, normal: B * H * W * C, seed: 1)
        let y = KernelBuffer(CK_F32, count: B * size.0 * size.1 * C)
        ck_resize_bilinear(B, H, W, C, size.0, size.1, 2, -1, x.floats, y.floats)
        func place(_ i: Int, _ from: Int, _ to: Int) -> (Int, Int, Double) {
            let at = max(0, (Double(i) + 0.5) * Double(from) / Double(to) - 0.5)
            let low = min(Int(at), from - 1)
            return (low, min(low + 1, from - 1), at - Double(low))
        }
        var expected: [Double] = []
        for b in 0..<B {
            for i in 0..<size.0 {
                for j in 0..<size.1 {
                    for c in 0..<C {
                        let (h, w) = (place(i, H, size.0), place(j, W, size.1))
                        func at(_ h: Int, _ w: Int) -> Double { Double(x[((b * H + h) * W + w) * C + c]) }
                        let upper = (1 - w.2) * at(h.0, w.0) + w.2 * at(h.0, w.1)
                        let lower = (1 - w.2) * at(h.1, w.0) + w.2 * at(h.1, w.1)
                        expected.append(2 * ((1 - h.2) * upper + h.2 * lower) - 1)
                    }
                }
            }
        }
        expectClose(y, expected, tolerance: 1e-5)
    }
}
