import TensorCore

/// diffusers' Decoder: latent to image. Each level except the last doubles height and width.
struct Decoder {
    private let convIn: Conv2D
    private let midBlock: UNetMidBlock2D
    private let upBlocks: [UpBlock]
    private let convNormOut: GroupNorm
    private let convOut: Conv2D

    init(_ scope: ParameterScope, _ inChannels: Int, _ outChannels: Int, _ shape: AutoencoderShape) {
        let settings = shape.settings
        let reversed = Array(shape.blockOutChannels.reversed())
        let last = reversed[reversed.count - 1]
        convIn = Conv2D(scope["conv_in"], inChannels, reversed[0])
        midBlock = UNetMidBlock2D(
            scope["mid_block"], reversed[0], headDim: shape.midAttention ? reversed[0] : nil,
            attentionGroups: shape.groups, settings)
        upBlocks = reversed.indices.map { level in
            UpBlock(
                scope["up_blocks", level], reversed[max(level - 1, 0)], reversed[level],
                layers: shape.layersPerBlock + 1, upsamples: level < reversed.count - 1, settings)
        }
        convNormOut = GroupNorm(scope["conv_norm_out"], last, groups: shape.groups, eps: settings.eps)
        convOut = Conv2D(scope["conv_out"], last, outChannels)
    }

    /// - Parameter latent: [B, h, w, in]
    /// - Returns: [B, f·h, f·w, out]
    func callAsFunction(_ tape: Tape, _ latent: Tensor) -> Tensor {
        var noSkips: [Tensor] = []
        var h = midBlock(tape, convIn(tape, latent))
        for block in upBlocks { h = block(tape, h, skips: &noSkips) }
        return convOut(tape, convNormOut(tape, h, silu: true))
    }
}
