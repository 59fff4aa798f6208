import TensorCore

/// Self-attention over pixels with a residual connection, diffusers' Attention as used in its U-Nets and
/// autoencoders: y = (x + to_out(attention(to_q(h), to_k(h), to_v(h)))) / factor, h = group_norm(x).
package struct Attention {
    let groupNorm: GroupNorm?
    let toQ: Linear
    let toK: Linear
    let toV: Linear
    let toOut: Linear
    let heads: Int
    let outputScaleFactor: Float
    let exactProducts: Bool

    /// - Parameters:
    ///   - headDim: channels of a head; there are channels/headDim heads
    ///   - groups: groups of the norm; nil for no norm
    ///   - exactProducts: compute products of bf16 tensors in fp32
    package init(
        _ scope: ParameterScope, _ channels: Int, headDim: Int, groups: Int?, eps: Float,
        outputScaleFactor: Float = 1, exactProducts: Bool = false
    ) {
        precondition(headDim > 0 && headDim <= channels, "heads of \(headDim) from \(channels) channels")
        heads = channels / headDim
        let inner = heads * headDim
        groupNorm = groups.map { GroupNorm(scope["group_norm"], channels, groups: $0, eps: eps) }
        toQ = Linear(scope["to_q"], channels, inner)
        toK = Linear(scope["to_k"], channels, inner)
        toV = Linear(scope["to_v"], channels, inner)
        toOut = Linear(scope["to_out", 0], inner, channels)
        self.outputScaleFactor = outputScaleFactor
        self.exactProducts = exactProducts
    }

    /// - Parameter x: [B, H, W, C]
    /// - Returns: [B, H, W, C]
    package func callAsFunction(_ tape: Tape, _ x: Tensor) -> Tensor {
        let (B, C) = (x.shape[0], x.shape.last!)
        let tokens = tape.reshape(x, [B, x.count / (B * C), C])
        let h = groupNorm.map { $0(tape, tokens) } ?? tokens
        let attended = tape.attention(
            toQ(tape, h), toK(tape, h), toV(tape, h), heads: heads, exactProducts: exactProducts)
        let y = tape.reshape(toOut(tape, attended, addend: tokens), x.shape)
        return outputScaleFactor == 1 ? y : tape.scale(y, by: 1 / outputScaleFactor)
    }
}
