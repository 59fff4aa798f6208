import CKernels
import Foundation
import TensorCore
import Testing

/// A shape [B, P, C] of samples, pixels and channels.
struct ChannelShape: Sendable, CustomTestStringConvertible {
    let samples: Int
    let pixels: Int
    let channels: Int
    var count: Int { samples * pixels * channels }
    var testDescription: String { "[\(samples), \(pixels), \(channels)]" }

    init(_ samples: Int, _ pixels: Int, _ channels: Int) {
        (self.samples, self.pixels, self.channels) = (samples, pixels, channels)
    }

    static let all = [
        ChannelShape(1, 1, 1), ChannelShape(3, 1, 20), ChannelShape(2, 7, 33),
        ChannelShape(1, 130, 150), ChannelShape(5, 67, 224),
    ]
}

@Suite struct KernelChannelTests {
    @Test(arguments: Element.allCases, ChannelShape.all)
    func addChannels(_ element: Element, _ shape: ChannelShape) {
        let (B, P, C, dtype) = (shape.samples, shape.pixels, shape.channels, element.dtype)
        let x = KernelBuffer(dtype, normal: shape.count, seed: 1)
        let t = KernelBuffer(dtype, normal: B * C, seed: 2)
        let y = KernelBuffer(dtype, count: shape.count)
        ck_add_channels_forward(dtype, B, P, C, x.pointer, t.pointer, y.pointer)
        let expected = (0..<shape.count).map { Double(x[$0]) + Double(t[$0 / (P * C) * C + $0 % C]) }
        expectClose(y, expected, "y")

        for addend in Addend.allCases {
            let (gt, added, sums) = addend.make(dtype, B * C)
            ck_add_channels_backward(dtype, B, P, C, x.pointer, added?.pointer, gt.pointer)
            var expected = sums
            for index in 0..<shape.count { expected[index / (P * C) * C + index % C] += Double(x[index]) }
            expectClose(gt, expected, tolerance: 2e-6, scale: sqrt(Double(P)), "gt")
        }
    }

    @Test(arguments: Element.allCases, ChannelShape.all)
    func scaleShift(_ element: Element, _ shape: ChannelShape) {
        let (B, P, C, dtype) = (shape.samples, shape.pixels, shape.channels, element.dtype)
        let x = KernelBuffer(dtype, normal: shape.count, seed: 3)
        let st = KernelBuffer(dtype, normal: B * 2 * C, seed: 4)
        let gy = KernelBuffer(dtype, normal: shape.count, seed: 5)
        let y = KernelBuffer(dtype, count: shape.count)
        func scale(_ index: Int) -> Double { Double(st[index / (P * C) * 2 * C + index % C]) }
        func shift(_ index: Int) -> Double { Double(st[index / (P * C) * 2 * C + C + index % C]) }

        ck_scale_shift_forward(dtype, B, P, C, x.pointer, st.pointer, y.pointer)
        expectClose(y, (0..<shape.count).map { Double(x[$0]) * (1 + scale($0)) + shift($0) }, "y")

        for addend in Addend.allCases {
            let (gx, added, addedValues) = addend.make(dtype, shape.count)
            let gst = KernelBuffer(dtype, count: B * 2 * C)
            ck_scale_shift_backward(
                dtype, B, P, C, x.pointer, st.pointer, gy.pointer, added?.pointer, gx.pointer, gst.pointer)
            let expectedX = (0..<shape.count).map { Double(gy[$0]) * (1 + scale($0)) + addedValues[$0] }
            var expectedST = [Double](repeating: 0, count: B * 2 * C)
            for index in 0..<shape.count {
                let at = index / (P * C) * 2 * C + index % C
                expectedST[at] += Double(gy[index]) * Double(x[index])
                expectedST[at + C] += Double(gy[index])
            }
            expectClose(gx, expectedX, "gx")
            expectClose(gst, expectedST, tolerance: 2e-6, scale: sqrt(Double(P)), "gst")
        }
    }

    // MARK: dropout

    /// The mask follows CounterRandom: the seed combined with the layer, purpose dropout, one number per
    /// element.
    @Test(arguments: Element.allCases, Addend.allCases)
    func dropoutDrawsFromCounterRandom(_ element: Element, _ addend: Addend) {
        let samples: [Int64] = [5, 1_234_567_890_123, 0]
        let (perSample, p, seed, layer, step) = (1003, Float(0.3), UInt64(42), UInt32(7), UInt64(1) << 33 + 9)
        let n = samples.count * perSample
        let x = KernelBuffer(element.dtype, normal: n, seed: 6)
        let (y, added, addedValues) = addend.make(element.dtype, n)
        ck_dropout(
            element.dtype, samples.count, perSample, p, seed, layer, step, samples, x.pointer, added?.pointer,
            y.pointer)
        var expected = addedValues
        for (b, sample) in samples.enumerated() {
            var random = CounterRandom(
                seed: seed &+ UInt64(layer) &* 0xBF58_476D_1CE4_E5B9, purpose: .dropout, step: step,
                sample: UInt64(sample))
            for index in b * perSample..<(b + 1) * perSample where random.uniform() >= p {
                expected[index] += Double(x[index]) / (1 - Double(p))
            }
        }
        expectClose(y, expected)
    }

    @Test func dropoutAtItsLimits() {
        let x = KernelBuffer(CK_F32, normal: 5000, seed: 7)
        let y = KernelBuffer(CK_F32, count: 5000)
        ck_dropout(CK_F32, 1, 5000, 0, 1, 1, 1, [3], x.pointer, nil, y.pointer)
        #expect(x.bytes == y.bytes)
        ck_dropout(CK_F32, 1, 5000, 1, 1, 1, 1, [3], x.pointer, nil, y.pointer)
        #expect(y.values.allSatisfy { $0 == 0 })
        ck_fill(CK_F32, 5000, 1, x.pointer)
        ck_dropout(CK_F32, 1, 5000, 0.25, 1, 1, 1, [3], x.pointer, nil, y.pointer)
        let kept = y.values.filter { $0 != 0 }.count
        #expect(abs(Double(kept) - 3750) < 5 * sqrt(5000 * 0.25 * 0.75))
    }

    // MARK: timestep embedding

    struct Embedding: Sendable {
        let dim: Int
        let flip: Bool
        let shift: Float
        let values: [Float]  // of t = 0, 1, 250.5, 999
    }

    /// Computed with diffusers 0.x: get_timestep_embedding(t, dim, flip_sin_to_cos, downscale_freq_shift).
    static let embeddings = [
        Embedding(
            dim: 8, flip: false, shift: 1,
            values: [
                0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0,
                0.841470957, 0.0463992283, 0.00215443317, 9.99999902e-05, 0.540302336, 0.998922944,
                0.999997675, 1.0,
                -0.736182511, -0.807079852, 0.513866544, 0.0250473786, 0.676783025, 0.5904423, 0.857870102,
                0.999686241,
                -0.0264607519, 0.684861422, 0.835648477, 0.0997339115, 0.999649823, -0.728673339,
                -0.549264669, 0.995014131,
            ]),
        Embedding(
            dim: 8, flip: true, shift: 0,
            values: [
                1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0,
                0.540302336, 0.995004177, 0.999949992, 0.999999523, 0.841470957, 0.099833414, 0.00999983307,
                0.000999999815,
                0.676783025, 0.996578813, -0.804125845, 0.968788624, -0.736182511, -0.0826476142,
                0.594459057, 0.247888386,
                0.999649823, 0.807455063, -0.844469786, 0.541143537, -0.0264607519, -0.589929104,
                -0.535603166, 0.840930223,
            ]),
        Embedding(
            dim: 7, flip: false, shift: 1,
            values: [
                0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0,
                0.841470957, 0.00999983307, 9.99999902e-05, 0.540302336, 0.999949992, 1.0, 0.0,
                -0.736182511, 0.594459057, 0.0250473786, 0.676783025, -0.804125845, 0.999686241, 0.0,
                -0.0264607519, -0.535603166, 0.0997339115, 0.999649823, -0.844469786, 0.995014131, 0.0,
            ]),
        Embedding(
            dim: 7, flip: true, shift: 0,
            values: [
                1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0,
                0.540302336, 0.998922944, 0.999997675, 0.841470957, 0.0463992283, 0.00215443317, 0.0,
                0.676783025, 0.5904423, 0.857870102, -0.736182511, -0.807079852, 0.513866544, 0.0,
                0.999649823, -0.728673339, -0.549264669, -0.0264607519, 0.684861422, 0.835648477, 0.0,
            ]),
    ]

    @Test(arguments: Element.allCases, embeddings)
    func timestepEmbedding(_ element: Element, _ embedding: Embedding) {
        let y = KernelBuffer(element.dtype, count: 4 * embedding.dim)
        ck_timestep_embedding(
            element.dtype, 4, embedding.dim, [0, 1, 250.5, 999], embedding.flip ? 1 : 0, embedding.shift,
            y.pointer)
        // An angle of 999 has a rounding error of 6e-5 in fp32, in which two libraries may differ.
        expectClose(y, embedding.values.map(Double.init), tolerance: 7e-5)
    }
}
