import FileFormats
import TensorCore

/// diffusers' AutoencoderKL: encodes an image as the mean and log-variance of a Gaussian over latents
/// (Rombach et al., 2022, section 3.1).
package final class AutoencoderKL {
    package let config: AutoencoderKLConfig
    package let store: ParameterStore

    private let encoder: Encoder
    private let quantConv: Conv2D?
    private let postQuantConv: Conv2D?
    private let decoder: Decoder

    /// Declares the model's parameters in the store; values come from `store.initialize` or a `ModelFolder`.
    package init(_ config: AutoencoderKLConfig, store: ParameterStore = ParameterStore()) throws(ConfigError)
    {
        try config.validate()
        self.config = config
        self.store = store
        let root = ParameterScope(store)
        let latent = config.latentChannels
        let shape = AutoencoderShape(
            blockOutChannels: config.blockOutChannels, layersPerBlock: config.layersPerBlock,
            groups: config.normNumGroups, midAttention: config.midBlockAddAttention)
        encoder = Encoder(root["encoder"], config.inChannels, 2 * latent, shape)
        quantConv =
            config.useQuantConv ? Conv2D(root["quant_conv"], 2 * latent, 2 * latent, kernel: 1) : nil
        postQuantConv =
            config.usePostQuantConv ? Conv2D(root["post_quant_conv"], latent, latent, kernel: 1) : nil
        decoder = Decoder(root["decoder"], latent, config.outChannels, shape)
    }

    /// Records the encoder.
    ///
    /// - Parameter image: [B, H, W, in] in [-1, 1]; H and W are multiples of `config.downsamplingFactor`
    /// - Returns: moments [B, h, w, 2·latent]: mean, then log-variance (not clamped)
    package func encode(_ tape: Tape, _ image: Tensor) -> Tensor {
        let moments = encoder(tape, image)
        return quantConv.map { $0(tape, moments) } ?? moments
    }

    /// Records the decoder.
    ///
    /// - Parameter latent: [B, h, w, latent], not scaled
    /// - Returns: [B, H, W, out]
    package func decode(_ tape: Tape, _ latent: Tensor) -> Tensor {
        decoder(tape, postQuantConv.map { $0(tape, latent) } ?? latent)
    }
}

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
