import TensorCore
import Testing
import TestSupport

// Tests all operations with the shared check. Shapes and values are those of the fixture.

@Suite struct TapeOperationTests {
    // MARK: Convolutions and linear layers

    struct ConvolutionCase: Sendable, CustomTestStringConvertible {
        var name: String
        var stride = 1
        var padding = Padding.all(1)
        var testDescription: String { name }
    }

    @Test(arguments: [
        ConvolutionCase(name: "3x3"), ConvolutionCase(name: "3x3_wide"),
        ConvolutionCase(name: "3x3_odd_channels"), ConvolutionCase(name: "3x3_no_bias"),
        ConvolutionCase(name: "3x3_addend"), ConvolutionCase(name: "3x3_one_pixel"),
        ConvolutionCase(name: "1x1", padding: .all(0)), ConvolutionCase(name: "1x1_addend", padding: .all(0)),
        ConvolutionCase(name: "stride2_symmetric", stride: 2),
        ConvolutionCase(name: "stride2_symmetric_odd", stride: 2),
        ConvolutionCase(name: "stride2_bottom_right", stride: 2, padding: .bottomRight),
        ConvolutionCase(name: "stride2_bottom_right_odd", stride: 2, padding: .bottomRight),
    ])
    func convolution(_ c: ConvolutionCase) throws {
        try checkOperation("convolution_\(c.name)", backends: Backend.allCases) { tape, x in
            tape.convolution(
                x["x"], x.parameter("weight"), x.parameters["bias"], stride: c.stride, padding: c.padding,
                addend: x.inputs["addend"])
        }
    }

    @Test(arguments: ["linear", "linear_tokens", "linear_no_bias", "linear_addend"])
    func linear(_ name: String) throws {
        try checkOperation(name, backends: Backend.allCases) { tape, x in
            tape.linear(x["x"], x.parameter("weight"), x.parameters["bias"], addend: x.inputs["addend"])
        }
    }

    @Test(arguments: [false, true])
    func matmul(transposed: Bool) throws {
        try checkOperation(transposed ? "matmul_transposed" : "matmul", types: [.float32]) { tape, x in
            tape.matmul(x["a"], x["b"], transposed: transposed)
        }
    }

    // MARK: Norms and activations

    struct NormCase: Sendable, CustomTestStringConvertible {
        var name: String
        var groups: Int
        var eps: Float = 1e-5
        var testDescription: String { name }
    }

    @Test(arguments: [
        NormCase(name: "group_norm", groups: 3), NormCase(name: "group_norm_silu", groups: 3),
        NormCase(name: "group_norm_one_group", groups: 1, eps: 1e-6),
        NormCase(name: "group_norm_silu_channel_each", groups: 7),
        NormCase(name: "group_norm_silu_wide", groups: 16, eps: 1e-6),
        NormCase(name: "group_norm_odd_width", groups: 11),
        NormCase(name: "group_norm_tokens", groups: 5, eps: 1e-6),
    ])
    func groupNorm(_ c: NormCase) throws {
        try checkOperation(c.name) { tape, x in
            tape.groupNorm(
                x["x"], x.parameter("weight"), x.parameter("bias"), groups: c.groups, eps: c.eps,
                silu: c.name.contains("silu"))
        }
    }

    @Test func silu() throws {
        try checkOperation("silu") { tape, x in tape.silu(x["x"]) }
    }

    // MARK: Attention

    @Test(arguments: [
        ("attention", 1), ("attention_two_heads", 2), ("attention_odd", 3), ("attention_one_token", 2),
        ("attention_long", 2),
    ])
    func attention(name: String, heads: Int) throws {
        try checkOperation(name, backends: [.openBLAS, .fastest]) { tape, x in
            tape.attention(x["q"], x["k"], x["v"], heads: heads)
        }
    }

    // MARK: Resampling and combining

    @Test func upsample() throws {
        try checkOperation("upsample") { tape, x in tape.upsample(x["x"]) }
    }

    @Test func averagePool() throws {
        try checkOperation("average_pool") { tape, x in tape.averagePool(x["x"]) }
    }

    @Test func concatenate() throws {
        try checkOperation("concatenate") { tape, x in tape.concatenate(x["a"], x["b"]) }
    }

    @Test func slice() throws {
        try checkOperation("slice") { tape, x in tape.slice(x["x"], from: 2, width: 3) }
    }

    @Test func add() throws {
        try checkOperation("add") { tape, x in tape.add(x["a"], x["b"]) }
        try checkOperation("add_scaled") { tape, x in tape.add(x["a"], x["b"], scale: 0.625) }
    }

    @Test func scaleAndAffine() throws {
        try checkOperation("scale") { tape, x in tape.scale(x["x"], by: -1.75) }
        try checkOperation("affine") { tape, x in tape.affine(x["x"], scale: 1.5, shift: -0.25) }
    }

    @Test func reshape() throws {
        try checkOperation("reshape") { tape, x in
            tape.reshape(tape.scale(tape.reshape(x["x"], [30, 4]), by: 0.5), [2, 15, 4])
        }
    }

    @Test func cast() throws {
        // Casts back and forth; bf16 would round away the steps of finite differences.
        try checkOperation("cast", finiteDifferences: false) { tape, x in
            let other: DType = tape.dtype == .float32 ? .bfloat16 : .float32
            return tape.cast(tape.cast(x["x"], to: other), to: tape.dtype)
        }
        try checkOperation("cast", finiteDifferences: false) { tape, x in
            tape.cast(x["x"], to: tape.dtype == .float32 ? .bfloat16 : .float32)
        }
    }

    @Test func timeEmbeddingSums() throws {
        try checkOperation("add_channels") { tape, x in tape.addChannels(x["x"], x["t"]) }
        try checkOperation("scale_shift") { tape, x in tape.scaleShift(x["x"], x["st"]) }
    }

    @Test(arguments: [
        ("timestep_embedding", 8, false, Float(1)), ("timestep_embedding_flipped", 12, true, 0),
        ("timestep_embedding_odd", 7, true, 0),
    ])
    func timestepEmbedding(name: String, dim: Int, flip: Bool, shift: Float) throws {
        try checkOperation(name) { tape, x in
            tape.timestepEmbedding(x["t"], dim: dim, flipSinToCos: flip, freqShift: shift)
        }
    }

    @Test func embedding() throws {
        try checkOperation("embedding") { tape, x in tape.embedding(x["labels"], x.parameter("table")) }
    }

    // MARK: Losses

    @Test func errors() throws {
        try checkOperation("error_squared") { tape, x in
            RecordedOperation(loss: tape.error(.squared, x["x"], x["target"], weight: x["weight"]))
        }
        try checkOperation("error_absolute") { tape, x in
            RecordedOperation(loss: tape.error(.absolute, x["x"], x["target"], weight: x["weight"]))
        }
        try checkOperation("edge_error") { tape, x in
            RecordedOperation(loss: tape.edgeError(x["x"], x["target"], weight: x["weight"]))
        }
    }

    @Test func gaussianSample() throws {
        try checkOperation("gaussian_sample") { tape, x in
            let (z, divergence) = tape.gaussianSample(x["moments"], noise: x["noise"], klWeight: 0.375)
            return RecordedOperation(output: z, sums: divergence)
        }
    }

    // MARK: Compositions

    /// Residual sums share gradients, a skip connection is read three times, and activations have different
    /// lifetimes: an invalid in-place write would change a gradient.
    @Test func residualNetwork() throws {
        try checkOperation("residual_network", backends: Backend.allCases, tolerance: 2) { tape, x in
            func convolution(_ name: String, _ h: Tensor, stride: Int = 1, addend: Tensor? = nil) -> Tensor {
                let weight = x.parameter("\(name).weight")
                return tape.convolution(
                    h, weight, x.parameter("\(name).bias"), stride: stride,
                    padding: .all(weight.shape[2] / 2), addend: addend)
            }
            func norm(_ name: String, _ h: Tensor, groups: Int, silu: Bool) -> Tensor {
                tape.groupNorm(
                    h, x.parameter("\(name).weight"), x.parameter("\(name).bias"), groups: groups, eps: 1e-5,
                    silu: silu)
            }
            let first = convolution("in", x["x"])
            var y = convolution("conv1", norm("norm1", first, groups: 2, silu: true))
            y = norm("norm2", tape.addChannels(y, x["t"]), groups: 4, silu: true)
            var h = convolution("conv2", y, addend: first)
            let (B, H, W, C) = (h.shape[0], h.shape[1], h.shape[2], h.shape[3])
            let tokens = tape.reshape(norm("norm3", h, groups: 2, silu: false), [B, H * W, C])
            let q = tape.linear(tokens, x.parameter("q.weight"), nil)
            let attended = tape.reshape(tape.attention(q, tokens, tokens, heads: 1), h.shape)
            h = tape.add(attended, h, scale: 0.7)
            let up = tape.upsample(tape.silu(convolution("down", h, stride: 2)))
            return convolution("out", tape.concatenate(up, first))
        }
    }
}
