import CKernels
import Foundation
import Testing

@Suite struct KernelSpatialTests {
    struct Case: Sendable {
        let samples: Int
        let height: Int
        let width: Int
        let channels: Int
    }

    static let cases = [
        Case(samples: 1, height: 1, width: 1, channels: 1),
        Case(samples: 2, height: 3, width: 5, channels: 20),
        Case(samples: 1, height: 16, width: 12, channels: 96),
        Case(samples: 3, height: 8, width: 2, channels: 33),
    ]

    /// The index in [B, H, W, C] that corresponds to index `large` of [B, 2H, 2W, C].
    private func parent(_ large: Int, _ test: Case) -> Int {
        let c = large % test.channels
        let w = large / test.channels % (2 * test.width)
        let row = large / test.channels / (2 * test.width)  // b·2H + h; 2H is even, so halving it is safe
        return (row / 2 * test.width + w / 2) * test.channels + c
    }

    @Test(arguments: Element.allCases, cases) func upsample(_ element: Element, _ test: Case) {
        let (B, H, W, C, dtype) = (test.samples, test.height, test.width, test.channels, element.dtype)
        let x = KernelBuffer(dtype, normal: B * H * W * C, seed: 1)
        let y = KernelBuffer(dtype, count: 4 * x.count)
        ck_upsample_forward(dtype, B, H, W, C, x.pointer, y.pointer)
        expectClose(y, (0..<y.count).map { Double(x[parent($0, test)]) }, tolerance: 0)

        let gy = KernelBuffer(dtype, normal: y.count, seed: 2)
        for addend in Addend.allCases {
            let (gx, added, sums) = addend.make(dtype, x.count)
            ck_upsample_backward(dtype, B, H, W, C, gy.pointer, added?.pointer, gx.pointer)
            var expected = sums
            for index in 0..<gy.count { expected[parent(index, test)] += Double(gy[index]) }
            expectClose(gx, expected)
        }
    }

    @Test(arguments: Element.allCases, cases) func averagePool(_ element: Element, _ test: Case) {
        let (B, H, W, C, dtype) = (test.samples, test.height, test.width, test.channels, element.dtype)
        let x = KernelBuffer(dtype, normal: 4 * B * H * W * C, seed: 1)
        let y = KernelBuffer(dtype, count: B * H * W * C)
        ck_average_pool_forward(dtype, B, 2 * H, 2 * W, C, x.pointer, y.pointer)
        var expected = [Double](repeating: 0, count: y.count)
        for index in 0..<x.count { expected[parent(index, test)] += Double(x[index]) / 4 }
        expectClose(y, expected)

        let gy = KernelBuffer(dtype, normal: y.count, seed: 2)
        for addend in Addend.allCases {
            let (gx, added, addedValues) = addend.make(dtype, x.count)
            ck_average_pool_backward(dtype, B, 2 * H, 2 * W, C, gy.pointer, added?.pointer, gx.pointer)
            expectClose(gx, (0..<x.count).map { Double(gy[parent($0, test)]) / 4 + addedValues[$0] })
        }
    }

    @Test(arguments: Element.allCases) func columns(_ element: Element) {
        for (rows, A, B) in [(1, 1, 1), (7, 20, 33), (300, 64, 128)] {
            let (dtype, total) = (element.dtype, A + B)
            let a = KernelBuffer(dtype, normal: rows * A, seed: 1)
            let b = KernelBuffer(dtype, normal: rows * B, seed: 2)
            let y = KernelBuffer(dtype, count: rows * total)
            ck_concat_forward(dtype, rows, A, B, a.pointer, b.pointer, y.pointer)
            let whole = (0..<rows * total).map { index in
                let (row, column) = (index / total, index % total)
                return Double(column < A ? a[row * A + column] : b[row * B + column - A])
            }
            expectClose(y, whole, tolerance: 0, "concat")

            for addend in Addend.allCases {
                let (part, added, addedValues) = addend.make(dtype, rows * B)
                ck_slice_columns(dtype, rows, total, A, B, y.pointer, added?.pointer, part.pointer)
                expectClose(part, zip(b.exact, addedValues).map { $0 + $1 }, "slice")
            }

            let placed = KernelBuffer(dtype, count: rows * total)
            ck_fill(dtype, rows * total, 5, placed.pointer)
            ck_place_columns(dtype, rows, total, A, B, b.pointer, placed.pointer)
            let kept = whole.enumerated().map { $0.offset % total < A ? 5 : $0.element }
            expectClose(placed, kept, tolerance: 0, "place")
        }
    }

    @Test(arguments: Element.allCases, cases) func layout(_ element: Element, _ test: Case) {
        let (B, H, W, C, dtype) = (test.samples, test.height, test.width, test.channels, element.dtype)
        let x = KernelBuffer(CK_F32, normal: B * C * H * W, seed: 1)
        let y = KernelBuffer(dtype, count: x.count)
        ck_nchw_to_nhwc(dtype, B, C, H, W, x.floats, y.pointer)
        let rounded = KernelBuffer(dtype, x.values)
        let expected = (0..<y.count).map { index in
            let (pixel, c) = (index / C, index % C)
            return Double(rounded[(pixel / (H * W) * C + c) * H * W + pixel % (H * W)])
        }
        expectClose(y, expected, tolerance: 0, "nhwc")

        let back = KernelBuffer(CK_F32, count: x.count)
        ck_nhwc_to_nchw(dtype, B, C, H, W, y.pointer, back.floats)
        #expect(back.values == rounded.values && back.guardHolds)
    }

    @Test func nearestCode() {
        for (rows, K, D) in [(1, 1, 1), (37, 100, 3), (50, 64, 40), (20, 70, 4)] {
            let x = KernelBuffer(CK_F32, normal: rows * D, seed: 1)
            let codebook = KernelBuffer(CK_F32, normal: K * D, seed: 2)
            var index = [Int32](repeating: -1, count: rows)
            ck_nearest_code(rows, K, D, x.floats, codebook.floats, &index)
            for row in 0..<rows {
                let distances = (0..<K).map { k in
                    (0..<D).reduce(0.0) {
                        let d = Double(x[row * D + $1]) - Double(codebook[k * D + $1])
                        return $0 + d * d
                    }
                }
                let found = Int(index[row])
                #expect(found >= 0 && found < K && distances[found] <= distances.min()! * (1 + 1e-5))
            }
        }
    }

    @Test func firstOfEqualCodesWins() {
        // Codes 3, 70 and 100 are equal, as are 5 and 6.
        var codes = (0..<130).map { Float($0 + 1000) }
        (codes[3], codes[70], codes[100], codes[5], codes[6]) = (1, 1, 1, 2, 2)
        var index = [Int32](repeating: -1, count: 2)
        ck_nearest_code(2, 130, 1, [1.1, 2.2], codes, &index)
        #expect(index == [3, 5])
    }
}
