import TensorCore

/// The part of the configuration that encoder and decoder share.
struct AutoencoderShape {
    var blockOutChannels: [Int]
    var layersPerBlock: Int
    var groups: Int
    var midAttention: Bool

    /// diffusers fixes eps at 1e-6 and one attention head for all autoencoders.
    var settings: BlockSettings { BlockSettings(timeChannels: nil, groups: groups, eps: 1e-6) }
}

/// diffusers' Encoder: image to latent (or its moments). Each level except the last halves height and width.
struct Encoder {
    private let convIn: Conv2D
    private let downBlocks: [DownBlock]
    private let midBlock: UNetMidBlock2D
    private let convNormOut: GroupNorm
    private let convOut: Conv2D

    init(_ scope: ParameterScope, _ inChannels: Int, _ outChannels: Int, _ shape: AutoencoderShape) {
        let (channels, settings) = (shape.blockOutChannels, shape.settings)
        let last = channels[channels.count - 1]
        convIn = Conv2D(scope["conv_in"], inChannels, channels[0])
        downBlocks = channels.indices.map { level in
            DownBlock(
                scope["down_blocks", level], channels[max(level - 1, 0)], channels[level],
                layers: shape.layersPerBlock, downsamplePadding: level == channels.count - 1 ? nil : 0,
                settings)
        }
        midBlock = UNetMidBlock2D(
            scope["mid_block"], last, headDim: shape.midAttention ? last : nil, attentionGroups: shape.groups,
            settings)
        convNormOut = GroupNorm(scope["conv_norm_out"], last, groups: shape.groups, eps: settings.eps)
        convOut = Conv2D(scope["conv_out"], last, outChannels)
    }

    /// - Parameter image: [B, H, W, in]
    /// - Returns: [B, H/f, W/f, out]
    func callAsFunction(_ tape: Tape, _ image: Tensor) -> Tensor {
        var h = convIn(tape, image)
        for block in downBlocks { h = block(tape, h).output }
        h = midBlock(tape, h)
        return convOut(tape, convNormOut(tape, h, silu: true))
    }
}
