import CKernels
import Support
import TensorCore
import Testing

/// The input of one test; its description appears in the report.
struct ConvCase: CustomTestStringConvertible, Sendable {
    var shape: ck_conv_shape
    var backend: ck_backend
    var threads: Int32

    var testDescription: String {
        let s = shape
        let name =
            [CK_OPENBLAS: "OpenBLAS", CK_ONEDNN: "oneDNN", CK_WINOGRAD: "Winograd"][backend] ?? "fastest"
        return "\(name) \(s.dtype == CK_BF16 ? "bf16" : "fp32") "
            + "[\(s.B), \(s.H), \(s.W), \(s.C)] -> \(s.O), \(s.kernelH)x\(s.kernelW) / \(s.stride), "
            + "pad (\(s.padTop), \(s.padLeft), \(s.padBottom), \(s.padRight)), \(threads) threads"
    }

    static let shapes: [ck_conv_shape] = [
        .init(1, 1, 1, 1, 1, kernel: (1, 1)),
        .init(2, 5, 7, 3, 5, kernel: (3, 3), pad: (1, 1, 1, 1)),
        .init(2, 6, 6, 32, 3, kernel: (3, 3), pad: (1, 1, 1, 1)),
        .init(1, 9, 6, 17, 35, kernel: (3, 3), pad: (1, 1, 1, 1)),
        .init(1, 2, 2, 64, 64, kernel: (3, 3), pad: (1, 1, 1, 1)),
        // Winograd: more tiles than fit into a block, in both passes; full panels of channels and remainders;
        // paddings.
        .init(3, 22, 26, 16, 16, kernel: (3, 3), pad: (1, 1, 1, 1)),
        .init(1, 12, 8, 48, 32, kernel: (3, 3), pad: (1, 1, 1, 1)),
        .init(2, 11, 13, 33, 31, kernel: (3, 3)),
        .init(1, 10, 7, 20, 70, kernel: (3, 3), pad: (2, 0, 1, 2)),
        .init(3, 38, 42, 18, 20, kernel: (3, 3), pad: (1, 1, 1, 1)),
        // Strides, with diffusers' two paddings for downsampling convolutions, for even and odd sizes.
        .init(1, 8, 8, 16, 32, kernel: (3, 3), stride: 2, pad: (0, 0, 1, 1)),
        .init(3, 9, 7, 4, 6, kernel: (3, 3), stride: 2, pad: (0, 0, 1, 1)),
        .init(3, 9, 7, 4, 6, kernel: (3, 3), stride: 2, pad: (1, 1, 1, 1)),
        .init(1, 6, 8, 32, 16, kernel: (3, 3), stride: 2, pad: (1, 1, 1, 1)),
        .init(1, 7, 10, 8, 8, kernel: (3, 3), stride: 3, pad: (1, 1, 1, 1)),
        .init(1, 7, 5, 10, 20, kernel: (1, 1), stride: 2),
        .init(1, 10, 10, 4, 4, kernel: (1, 1), stride: 3),
        // 1×1: a shortcut, and linear layers in both directions.
        .init(2, 4, 4, 64, 48, kernel: (1, 1)),
        .init(1, 13, 1, 17, 33, kernel: (1, 1)),
        .init(1, 1, 13, 128, 70, kernel: (1, 1)),
        .init(16, 1, 1, 32, 128, kernel: (1, 1)),
        // Kernel sizes and paddings that no model uses.
        .init(2, 6, 9, 5, 7, kernel: (5, 3), pad: (2, 0, 1, 2)),
        .init(1, 5, 6, 8, 16, kernel: (2, 4), stride: 2, pad: (1, 2, 0, 1)),
        .init(1, 4, 4, 3, 4, kernel: (2, 2), pad: (2, 3, 2, 2)),
        .init(1, 9, 8, 24, 20, kernel: (7, 7), pad: (3, 3, 3, 3)),
        .init(1, 5, 4, 9, 10, kernel: (17, 16), pad: (8, 8, 8, 7)),
    ]

    static let all: [ConvCase] = {
        var cases: [ConvCase] = []
        for backend in [CK_OPENBLAS, CK_ONEDNN, CK_WINOGRAD] where ck_backend_available(backend) == 1 {
            for dtype in [CK_F32, CK_BF16] {
                for threads: Int32 in [1, 2] {
                    for var shape in shapes {
                        shape.dtype = dtype
                        cases.append(.init(shape: shape, backend: backend, threads: threads))
                    }
                }
            }
        }
        return cases
    }()
}

/// A plan with its scratch memory and packed weights.
final class Conv {
    let plan: OpaquePointer
    let scratch: Buffer
    /// The plan's packed weights, or the weights themselves if the plan does not pack.
    private(set) var packed: Buffer
    private let type: ck_dtype

    init(
        _ backend: ck_backend, _ kind: ck_conv_kind, _ shape: ck_conv_shape, bias: Bool = false,
        addend: Bool = false
    )
        throws
    {
        var shape = shape
        var error = [CChar](repeating: 0, count: 256)
        plan = try #require(
            ck_conv_create(backend, kind, &shape, bias ? 1 : 0, addend ? 1 : 0, &error, error.count),
            "\(String(terminated: error))")
        scratch = Buffer(bytes: ck_conv_scratch_bytes(plan))
        packed = Buffer(bytes: ck_conv_packed_bytes(plan))
        type = shape.weights
    }

    deinit { ck_conv_destroy(plan) }

    func pack(_ weights: [Float]) {
        let given = Buffer(type, weights)
        ck_conv_pack(plan, given.pointer, packed.pointer)
        if ck_conv_packed_bytes(plan) == 0 { packed = given }
    }
}

// Serialized, because the number of threads is set per process.
@Suite("Convolution", .serialized) struct ConvTests {
    @Test("agrees with its definition", arguments: ConvCase.all)
    func definition(_ test: ConvCase) throws {
        ck_set_threads(test.threads)
        let s = test.shape
        let mixes = test.backend == CK_WINOGRAD
        var draw = Draw(UInt64(s.weightCount + s.inputCount))
        let x = draw.values(s.inputCount)
        let weights = draw.values(s.weightCount)
        let bias = draw.values(s.O)
        let gy = draw.values(s.outputCount)
        let addend = draw.values(s.outputCount)
        let expected = ConvReference(s, x: x, weights: weights, bias: bias, gy: gy)
        let xs = Buffer(s.dtype, x)
        let gys = Buffer(s.dtype, gy)

        let forward = try Conv(test.backend, CK_CONV_FORWARD, s, bias: true)
        forward.pack(weights)
        let y = Buffer(s.dtype, count: s.outputCount)
        ck_conv_forward(
            forward.plan, xs.pointer, forward.packed.pointer, bias, nil, y.pointer, forward.scratch.pointer)
        #expect(worstError(y.values, expected.y, s.dtype, mixes: mixes) <= 1)

        // Without a bias, with an addend: first another tensor, then the output itself.
        let adding = try Conv(test.backend, CK_CONV_FORWARD, s, addend: true)
        adding.pack(weights)
        var sums = expected.y
        for i in sums.indices { sums[i].add(Double(addend[i]) - Double(bias[i % s.O])) }
        let other = Buffer(s.dtype, addend)
        ck_conv_forward(
            adding.plan, xs.pointer, adding.packed.pointer, nil, other.pointer, y.pointer,
            adding.scratch.pointer)
        #expect(worstError(y.values, sums, s.dtype, mixes: mixes) <= 1)
        #expect(other.values == addend)
        ck_conv_forward(
            adding.plan, xs.pointer, adding.packed.pointer, nil, other.pointer, other.pointer,
            adding.scratch.pointer)
        #expect(worstError(other.values, sums, s.dtype, mixes: mixes) <= 1)

        let backwardData = try Conv(test.backend, CK_CONV_BACKWARD_DATA, s)
        backwardData.pack(weights)
        let gx = Buffer(s.dtype, count: s.inputCount)
        ck_conv_backward_data(
            backwardData.plan, gys.pointer, backwardData.packed.pointer, gx.pointer,
            backwardData.scratch.pointer)
        #expect(worstError(gx.values, expected.gx, s.dtype, mixes: mixes) <= 1)

        // Weights that bf16 represents exactly must give the same results when stored as bf16.
        var narrow = s
        narrow.weights = CK_BF16
        for kind in [CK_CONV_FORWARD, CK_CONV_BACKWARD_DATA] {
            var results: [[Float]] = []
            for shape in [s, narrow] {
                let plan = try Conv(test.backend, kind, shape)
                plan.pack(weights)
                let isForward = kind == CK_CONV_FORWARD
                let out = Buffer(s.dtype, count: isForward ? s.outputCount : s.inputCount)
                if isForward {
                    ck_conv_forward(
                        plan.plan, xs.pointer, plan.packed.pointer, nil, nil, out.pointer,
                        plan.scratch.pointer)
                } else {
                    ck_conv_backward_data(
                        plan.plan, gys.pointer, plan.packed.pointer, out.pointer, plan.scratch.pointer)
                }
                results.append(out.values)
            }
            #expect(results[0] == results[1])
        }

        let gw = Buffer(CK_F32, count: s.weightCount)
        let gb = Buffer(CK_F32, count: s.O)
        for bias in [true, false] {
            let plan = try Conv(test.backend, CK_CONV_BACKWARD_WEIGHTS, s, bias: bias)
            // First overwritten, then accumulated.
            for times in [1.0, 2.0] {
                ck_conv_backward_weights(
                    plan.plan, xs.pointer, gys.pointer, gw.floats, bias ? gb.floats : nil, times > 1 ? 1 : 0,
                    plan.scratch.pointer)
                let scale = { (sum: Sum) in Sum(value: times * sum.value, magnitude: times * sum.magnitude) }
                #expect(worstError(gw.values, expected.gw.map(scale), CK_F32, mixes: mixes) <= 1)
                if bias { #expect(worstError(gb.values, expected.gb.map(scale), CK_F32, mixes: mixes) <= 1) }
            }
        }
    }

    /// Shapes from the configurations, too large for the reference: here the backends are compared with each
    /// other.
    @Test(
        "backends agree on the models' shapes", .enabled(if: ck_backend_available(CK_ONEDNN) == 1),
        arguments: [
            ck_conv_shape(2, 32, 32, 128, 128, kernel: (3, 3), pad: (1, 1, 1, 1)),
            .init(2, 16, 16, 256, 512, kernel: (1, 1)),
            .init(3, 8, 8, 512, 256, kernel: (3, 3), pad: (1, 1, 1, 1)),
            .init(1, 16, 16, 224, 448, kernel: (3, 3), stride: 2, pad: (0, 0, 1, 1)),
            .init(2, 32, 32, 192, 192, kernel: (3, 3), stride: 2, pad: (1, 1, 1, 1)),
            .init(2, 64, 64, 3, 64, kernel: (3, 3), pad: (1, 1, 1, 1)),
            .init(2, 64, 64, 64, 4, kernel: (3, 3), pad: (1, 1, 1, 1)),
            .init(1, 256, 256, 32, 32, kernel: (3, 3), pad: (1, 1, 1, 1)),
            .init(64, 1, 1, 128, 512, kernel: (1, 1)),
        ], [CK_F32, CK_BF16])
    func backendsAgree(_ shape: ck_conv_shape, _ dtype: ck_dtype) throws {
        ck_set_threads(2)
        var s = shape
        s.dtype = dtype
        var draw = Draw(UInt64(s.weightCount))
        let x = draw.values(s.inputCount)
        let weights = draw.values(s.weightCount)
        let bias = draw.values(s.O)
        let gy = draw.values(s.outputCount)
        let xs = Buffer(dtype, x)
        let gys = Buffer(dtype, gy)
        var results: [[[Float]]] = []
        for backend in [CK_OPENBLAS, CK_ONEDNN, CK_FASTEST] {
            let y = Buffer(dtype, count: s.outputCount)
            let gx = Buffer(dtype, count: s.inputCount)
            let gw = Buffer(CK_F32, count: s.weightCount)
            let gb = Buffer(CK_F32, count: s.O)
            let forward = try Conv(backend, CK_CONV_FORWARD, s, bias: true)
            forward.pack(weights)
            ck_conv_forward(
                forward.plan, xs.pointer, forward.packed.pointer, bias, nil, y.pointer,
                forward.scratch.pointer)
            let data = try Conv(backend, CK_CONV_BACKWARD_DATA, s)
            data.pack(weights)
            ck_conv_backward_data(
                data.plan, gys.pointer, data.packed.pointer, gx.pointer, data.scratch.pointer)
            let gradient = try Conv(backend, CK_CONV_BACKWARD_WEIGHTS, s, bias: true)
            ck_conv_backward_weights(
                gradient.plan, xs.pointer, gys.pointer, gw.floats, gb.floats, 0, gradient.scratch.pointer)
            results.append([y.values, gx.values, gw.values, gb.values])
        }
        for (name, (a, b)) in zip(
            ["y", "gx", "gw", "gb"] + ["y", "gx", "gw", "gb"],
            zip(results[0] + results[0], results[1] + results[2]))
        {
            // Terms have size 1/3 and random signs, so a sum of n terms has a size of about sqrt(n).
            let size = (b.reduce(0.0) { $0 + Double($1) * Double($1) } / Double(b.count)).squareRoot()
            let worst = zip(a, b).map { abs(Double($0) - Double($1)) }.max() ?? 0
            let allowed = dtype == CK_BF16 && (name == "y" || name == "gx") ? 0.05 : 2e-4
            #expect(worst <= allowed * size, "\(name): \(worst) of \(size)")
            #expect(size > 0.3, "\(name)")
        }
    }

    /// Winograd's passes divide work by the number of tiles; this must not affect a sample's result.
    @Test(
        "a sample is the same in any batch", .enabled(if: ck_backend_available(CK_WINOGRAD) == 1),
        arguments: [CK_F32, CK_BF16], [Int32(1), 2])
    func batchDoesNotMatter(_ dtype: ck_dtype, _ threads: Int32) throws {
        ck_set_threads(threads)
        var results: [[Float]] = []
        for batch in [1, 2, 3] {
            let s = ck_conv_shape(batch, 32, 32, 160, 48, kernel: (3, 3), pad: (1, 1, 1, 1), dtype: dtype)
            var draw = Draw(1)
            let weights = draw.values(s.weightCount)
            let image = draw.values(s.inputCount / batch)
            let x = Buffer(dtype, Array((0..<batch).map { _ in image }.joined()))
            let y = Buffer(dtype, count: s.outputCount)
            let forward = try Conv(CK_WINOGRAD, CK_CONV_FORWARD, s)
            forward.pack(weights)
            ck_conv_forward(
                forward.plan, x.pointer, forward.packed.pointer, nil, nil, y.pointer, forward.scratch.pointer)
            for b in 0..<batch {
                results.append(Array(y.values[b * s.outputCount / batch..<(b + 1) * s.outputCount / batch]))
            }
        }
        #expect(results.allSatisfy { $0 == results[0] })
    }

    @Test func `refuses shapes that are none`() {
        for (shape, word) in [
            (ck_conv_shape(1, 2, 2, 3, 3, kernel: (3, 3)), "larger than the padded input"),
            (ck_conv_shape(0, 2, 2, 3, 3, kernel: (1, 1)), "B 0"),
            (ck_conv_shape(1, 2, 2, 3, 3, kernel: (1, 1), stride: 0), "stride 0"),
            (ck_conv_shape(1, 2, 2, 3, 3, kernel: (1, 1), pad: (-1, 0, 0, 0)), "padding (-1"),
        ] {
            var shape = shape
            var error = [CChar](repeating: 0, count: 256)
            #expect(ck_conv_create(CK_OPENBLAS, CK_CONV_FORWARD, &shape, 0, 0, &error, error.count) == nil)
            #expect(String(terminated: error).contains(word))
        }
    }

    @Test func `describes its backends`() {
        #expect(Backend.openBLAS.summary.hasPrefix("OpenBLAS, "))
        #expect(Backend.oneDNN.summary.hasPrefix("oneDNN "))
        #expect(ck_backend_available(CK_FASTEST) == 1)
    }
}
