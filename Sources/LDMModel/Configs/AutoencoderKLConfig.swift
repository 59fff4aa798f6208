import FileFormats

/// The encoder block types of an autoencoder.
package enum EncoderBlockType: String, ConfigChoice {
    case plain = "DownEncoderBlock2D"
}

/// The decoder block types of an autoencoder.
package enum DecoderBlockType: String, ConfigChoice {
    case plain = "UpDecoderBlock2D"
}

/// The configuration of diffusers' `AutoencoderKL`, with the same keys, defaults and semantics.
///
/// Source: diffusers 0.42, models/autoencoders/autoencoder_kl.py. As in diffusers, where these are
/// hard-coded, norms use eps 1e-6, downsampling is asymmetric (padding 0), and attention has one head.
package struct AutoencoderKLConfig: DiffusersConfig {
    package var inChannels = 3
    package var outChannels = 3
    package var downBlockTypes: [EncoderBlockType] = [.plain]
    package var upBlockTypes: [DecoderBlockType] = [.plain]
    /// Channels of each level, from the highest resolution to the lowest.
    package var blockOutChannels = [64]
    /// Residual blocks of an encoder level; a decoder level has one more.
    package var layersPerBlock = 1
    package var activation = Activation.silu
    package var latentChannels = 4
    package var normNumGroups = 32
    /// Training image size; informative.
    package var sampleSize = SpatialSize(32)
    /// Latents are multiplied by this before diffusion, so that they have unit variance.
    package var scalingFactor = 0.18215
    /// Subtracted from latents before scaling; nil for none.
    package var shiftFactor: Double?
    /// Informative: here the program chooses the first stage's precision.
    package var forceUpcast = true
    package var useQuantConv = true
    package var usePostQuantConv = true
    /// Whether the middle blocks have attention.
    package var midBlockAddAttention = true

    package init() {}

    enum Key: String, CaseIterable {
        case actFn = "act_fn"
        case blockOutChannels = "block_out_channels"
        case downBlockTypes = "down_block_types"
        case forceUpcast = "force_upcast"
        case inChannels = "in_channels"
        case latentChannels = "latent_channels"
        case latentsMean = "latents_mean"
        case latentsStd = "latents_std"
        case layersPerBlock = "layers_per_block"
        case midBlockAddAttention = "mid_block_add_attention"
        case normNumGroups = "norm_num_groups"
        case outChannels = "out_channels"
        case sampleSize = "sample_size"
        case scalingFactor = "scaling_factor"
        case shiftFactor = "shift_factor"
        case upBlockTypes = "up_block_types"
        case usePostQuantConv = "use_post_quant_conv"
        case useQuantConv = "use_quant_conv"
    }

    package init(config node: ConfigNode, path: [String] = []) throws(ConfigError) {
        try Self.checkClassName(node, path: path, expected: ["AutoencoderKL"])
        let reader = try ConfigReader<Key>(node, path: path, ignoringUnderscored: true)
        inChannels = try reader.read(.inChannels, default: inChannels)
        outChannels = try reader.read(.outChannels, default: outChannels)
        downBlockTypes = try reader.read(.downBlockTypes, default: downBlockTypes)
        upBlockTypes = try reader.read(.upBlockTypes, default: upBlockTypes)
        blockOutChannels = try reader.read(.blockOutChannels, default: blockOutChannels)
        layersPerBlock = try reader.read(.layersPerBlock, default: layersPerBlock)
        activation = try reader.read(.actFn, default: activation)
        latentChannels = try reader.read(.latentChannels, default: latentChannels)
        normNumGroups = try reader.read(.normNumGroups, default: normNumGroups)
        sampleSize = try reader.read(.sampleSize, default: sampleSize)
        scalingFactor = try reader.read(.scalingFactor, default: scalingFactor)
        shiftFactor = try reader.read(optional: .shiftFactor)
        forceUpcast = try reader.read(.forceUpcast, default: forceUpcast)
        useQuantConv = try reader.read(.useQuantConv, default: useQuantConv)
        usePostQuantConv = try reader.read(.usePostQuantConv, default: usePostQuantConv)
        midBlockAddAttention = try reader.read(.midBlockAddAttention, default: midBlockAddAttention)
        do throws(ConfigError) {
            for key in [Key.latentsMean, .latentsStd] {
                guard let found = reader.child(key), found.value != .null else { continue }
                throw ModelChecks.unsupported(
                    key.rawValue, found.found, "null (latents are scaled by scaling_factor and shift_factor)")
            }
            try validate()
        } catch {
            throw error.placed(in: node, under: path)
        }
    }

    package var className: String { "AutoencoderKL" }

    package var node: ConfigNode {
        .mapping([
            "act_fn": .string(activation.rawValue),
            "block_out_channels": .integers(blockOutChannels),
            "down_block_types": .strings(downBlockTypes.map(\.rawValue)),
            "force_upcast": .bool(forceUpcast),
            "in_channels": .integer(inChannels),
            "latent_channels": .integer(latentChannels),
            "latents_mean": .null,
            "latents_std": .null,
            "layers_per_block": .integer(layersPerBlock),
            "mid_block_add_attention": .bool(midBlockAddAttention),
            "norm_num_groups": .integer(normNumGroups),
            "out_channels": .integer(outChannels),
            "sample_size": sampleSize.node,
            "scaling_factor": .number(scalingFactor),
            "shift_factor": .number(shiftFactor),
            "up_block_types": .strings(upBlockTypes.map(\.rawValue)),
            "use_post_quant_conv": .bool(usePostQuantConv),
            "use_quant_conv": .bool(useQuantConv),
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

    /// f = 2^(levels - 1), the ratio of image size to latent size along each side.
    package var downsamplingFactor: Int { 1 << (blockOutChannels.count - 1) }

    package func validate() throws(ConfigError) {
        try ModelChecks.positive(inChannels, "in_channels")
        try ModelChecks.positive(outChannels, "out_channels")
        try ModelChecks.positive(latentChannels, "latent_channels")
        try ModelChecks.positive(layersPerBlock, "layers_per_block", limit: ModelChecks.mostLayers)
        try ModelChecks.levels(
            channels: blockOutChannels, down: downBlockTypes.count, up: upBlockTypes.count,
            groups: normNumGroups)
        try ModelChecks.scaling(scalingFactor)
        try ModelChecks.positive(sampleSize.height, "sample_size")
        try ModelChecks.positive(sampleSize.width, "sample_size")
        if let shiftFactor, !shiftFactor.isFinite {
            throw ConfigError(
                .invalidValue, at: ["shift_factor"], "found \(shiftFactor), expected a finite number")
        }
    }
}

extension ModelChecks {
    static func scaling(_ factor: Double) throws(ConfigError) {
        if !(factor > 0 && factor.isFinite) {
            throw ConfigError(.invalidValue, at: ["scaling_factor"], "found \(factor), expected more than 0")
        }
    }
}
