import FileFormats

/// The encoder block types of an autoencoder.
package enum EncoderBlockType: String, ConfigChoice {
    case plain = "DownEncoderBlock2D"
}

/// The decoder block types of an autoencoder.
package enum DecoderBlockType: String, ConfigChoice {
    case plain = "UpDecoderBlock2D"
}

/// The keys that diffusers' `AutoencoderKL` and `VQModel` share; `commonKeys` describes them.
package protocol AutoencoderConfig: DiffusersConfig {
    var inChannels: Int { get set }
    var outChannels: Int { get set }
    var downBlockTypes: [EncoderBlockType] { get set }
    var upBlockTypes: [DecoderBlockType] { get set }
    var blockOutChannels: [Int] { get set }
    var layersPerBlock: Int { get set }
    var activation: Activation { get set }
    var latentChannels: Int { get set }
    var normNumGroups: Int { get set }
    var sampleSize: SpatialSize { get set }
    var scalingFactor: Double { get set }
    var forceUpcast: Bool { get set }
    var midBlockAddAttention: Bool { get set }
}

extension AutoencoderConfig {
    /// - Parameter own: the other keys of the model.
    static func withCommonKeys(_ own: [ConfigKey<Self>]) -> [ConfigKey<Self>] {
        let common: [ConfigKey<Self>] = [
            .init("act_fn", \.activation, .otherModel, "Activation; silu and swish are the same."),
            .init(
                "block_out_channels", \.blockOutChannels, .channels, .otherTensors,
                "Channels of each level, from the highest resolution to the lowest."),
            .init(
                "down_block_types", \.downBlockTypes, .otherTensors, "Block type of each encoder level."),
            .init(
                "force_upcast", \.forceUpcast, .harmless,
                "Has no effect: the program chooses the precision of the first stage."),
            .init("in_channels", \.inChannels, .channels, .otherTensors, "Channels of the images."),
            .init("latent_channels", \.latentChannels, .channels, .otherTensors, "Channels of the latents."),
            .init(
                "layers_per_block", \.layersPerBlock, .layers, .otherTensors,
                "Residual blocks of an encoder level; a decoder level has one more."),
            .init(
                "mid_block_add_attention", \.midBlockAddAttention, .otherTensors,
                "Whether the middle blocks have attention."),
            .init("norm_num_groups", \.normNumGroups, .channels, .otherModel, "Groups of GroupNorm."),
            .init("out_channels", \.outChannels, .channels, .otherTensors, "Channels of the decoded images."),
            .init("sample_size", \.sampleSize, .sides, .harmless, "Size of the training images."),
            .init(
                "scaling_factor", \.scalingFactor, .above(0), .harmless,
                "Latents are multiplied by it before diffusion, so that they have unit variance."),
            .init("up_block_types", \.upBlockTypes, .otherTensors, "Block type of each decoder level."),
        ]
        return (common + own).sorted { $0.name < $1.name }
    }

    package func check() throws(ConfigError) {
        try ModelChecks.levels(
            channels: blockOutChannels, down: downBlockTypes.count, up: upBlockTypes.count,
            groups: normNumGroups)
    }

    /// f = 2^(levels - 1), the ratio of image size to latent size along each side.
    package var downsamplingFactor: Int { 1 << (blockOutChannels.count - 1) }
}

/// The configuration of diffusers' `AutoencoderKL`, with the same keys, defaults and semantics.
///
/// Source: diffusers 0.42, models/autoencoders/autoencoder_kl.py. As in diffusers, where these are
/// hard-coded, norms use eps 1e-6, downsampling is asymmetric (padding 0), and attention has one head.
package struct AutoencoderKLConfig: AutoencoderConfig {
    package var inChannels = 3
    package var outChannels = 3
    package var downBlockTypes: [EncoderBlockType] = [.plain]
    package var upBlockTypes: [DecoderBlockType] = [.plain]
    package var blockOutChannels = [64]
    package var layersPerBlock = 1
    package var activation = Activation.silu
    package var latentChannels = 4
    package var normNumGroups = 32
    package var sampleSize = SpatialSize(32)
    package var scalingFactor = 0.18215
    package var shiftFactor: Double?
    package var forceUpcast = true
    package var useQuantConv = true
    package var usePostQuantConv = true
    package var midBlockAddAttention = true

    package init() {}

    package static let classNames = ["AutoencoderKL"]

    package static var keys: [ConfigKey<AutoencoderKLConfig>] {
        let fixed = "null (latents are scaled by scaling_factor and shift_factor)"
        return withCommonKeys([
            .fixed("latents_mean", .null, .harmless, expected: fixed),
            .fixed("latents_std", .null, .harmless, expected: fixed),
            .init(
                "shift_factor", \.shiftFactor, .harmless,
                "Subtracted from latents before scaling; null for none."),
            .init(
                "use_post_quant_conv", \.usePostQuantConv, .otherTensors,
                "Whether a 1×1 convolution precedes the decoder."),
            .init(
                "use_quant_conv", \.useQuantConv, .otherTensors,
                "Whether a 1×1 convolution follows the encoder."),
        ])
    }

    /// Differences to a model whose weights are incompatible with this one or compute something else: one
    /// phrase per differing key. Keys that only affect how latents are used are ignored.
    package func differences(from other: AutoencoderKLConfig) -> [String] {
        mathematics.node.differences(from: other.mathematics.node)
    }

    private var mathematics: AutoencoderKLConfig {
        var config = self
        config.activation = .silu
        config.sampleSize = SpatialSize(1)
        (config.scalingFactor, config.shiftFactor, config.forceUpcast) = (1, nil, true)
        return config
    }
}
