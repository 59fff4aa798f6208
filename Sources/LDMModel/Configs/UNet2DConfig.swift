import FileFormats

/// The down block types of a U-Net: residual blocks, with or without self-attention after each.
package enum UNetDownBlockType: String, ConfigChoice {
    case plain = "DownBlock2D"
    case attention = "AttnDownBlock2D"
}

/// The up block types of a U-Net.
package enum UNetUpBlockType: String, ConfigChoice {
    case plain = "UpBlock2D"
    case attention = "AttnUpBlock2D"
}

/// How residual blocks apply the timestep embedding: added, or as scale and shift after the norm.
package enum TimeScaleShift: String, ConfigChoice {
    case add = "default"
    case scaleShift = "scale_shift"
}

/// The configuration of diffusers' `UNet2DModel`, with the same keys, defaults and semantics.
///
/// Source: diffusers 0.42, models/unets/unet_2d.py.
package struct UNet2DConfig: DiffusersConfig {
    /// Size of input and output; nil if the model accepts any.
    package var sampleSize: SpatialSize?
    package var inChannels = 3
    package var outChannels = 3
    /// Maps the input from [0, 1] to [-1, 1]: `2x - 1`.
    package var centerInputSample = false
    /// Width of the timestep embedding; nil means four times the first level's channels.
    package var timeEmbeddingDim: Int?
    /// Subtracted from half the channels in the exponent of the sinusoidal embedding (0 or 1).
    package var freqShift = 0
    /// Whether cosines precede sines in the sinusoidal embedding.
    package var flipSinToCos = true
    package var downBlockTypes: [UNetDownBlockType] = [.plain, .attention, .attention, .attention]
    /// Whether there is a middle block (`UNetMidBlock2D`; null in the file if there is none).
    package var hasMidBlock = true
    package var upBlockTypes: [UNetUpBlockType] = [.attention, .attention, .attention, .plain]
    /// Channels of each level, from the highest resolution to the lowest.
    package var blockOutChannels = [224, 448, 672, 896]
    /// Residual blocks of a down level; an up level has one more.
    package var layersPerBlock = 2
    /// Divisor of the residual sums in the middle block.
    package var midBlockScaleFactor = 1.0
    /// Padding of the stride-2 convolutions: 1 is symmetric, 0 pads one row at the bottom and one column on
    /// the right.
    package var downsamplePadding = 1
    package var dropout = 0.0
    package var activation = Activation.silu
    /// Width of one attention head; nil means one head.
    package var attentionHeadDim: Int? = 8
    package var normNumGroups = 32
    /// Groups of the norm before the middle block's attention; see `midAttentionNumGroups`.
    package var attnNormNumGroups: Int?
    package var normEps = 1e-5
    package var resnetTimeScaleShift = TimeScaleShift.add
    /// Whether the middle block has attention.
    package var addAttention = true

    package init() {}

    enum Key: String, CaseIterable {
        case actFn = "act_fn"
        case addAttention = "add_attention"
        case attentionHeadDim = "attention_head_dim"
        case attnNormNumGroups = "attn_norm_num_groups"
        case blockOutChannels = "block_out_channels"
        case centerInputSample = "center_input_sample"
        case classEmbedType = "class_embed_type"
        case downBlockTypes = "down_block_types"
        case downsamplePadding = "downsample_padding"
        case downsampleType = "downsample_type"
        case dropout
        case flipSinToCos = "flip_sin_to_cos"
        case freqShift = "freq_shift"
        case inChannels = "in_channels"
        case layersPerBlock = "layers_per_block"
        case midBlockScaleFactor = "mid_block_scale_factor"
        case midBlockType = "mid_block_type"
        case normEps = "norm_eps"
        case normNumGroups = "norm_num_groups"
        case numClassEmbeds = "num_class_embeds"
        case numTrainTimesteps = "num_train_timesteps"
        case outChannels = "out_channels"
        case resnetTimeScaleShift = "resnet_time_scale_shift"
        case sampleSize = "sample_size"
        case timeEmbeddingDim = "time_embedding_dim"
        case timeEmbeddingType = "time_embedding_type"
        case upBlockTypes = "up_block_types"
        case upsampleType = "upsample_type"
    }

    package init(config node: ConfigNode, path: [String] = []) throws(ConfigError) {
        try Self.checkClassName(node, path: path, expected: ["UNet2DModel"])
        let reader = try ConfigReader<Key>(node, path: path, ignoringUnderscored: true)
        sampleSize = try reader.read(optional: .sampleSize)
        inChannels = try reader.read(.inChannels, default: inChannels)
        outChannels = try reader.read(.outChannels, default: outChannels)
        centerInputSample = try reader.read(.centerInputSample, default: centerInputSample)
        timeEmbeddingDim = try reader.read(optional: .timeEmbeddingDim)
        freqShift = try reader.read(.freqShift, default: freqShift)
        flipSinToCos = try reader.read(.flipSinToCos, default: flipSinToCos)
        downBlockTypes = try reader.read(.downBlockTypes, default: downBlockTypes)
        upBlockTypes = try reader.read(.upBlockTypes, default: upBlockTypes)
        blockOutChannels = try reader.read(.blockOutChannels, default: blockOutChannels)
        layersPerBlock = try reader.read(.layersPerBlock, default: layersPerBlock)
        midBlockScaleFactor = try reader.read(.midBlockScaleFactor, default: midBlockScaleFactor)
        downsamplePadding = try reader.read(.downsamplePadding, default: downsamplePadding)
        dropout = try reader.read(.dropout, default: dropout)
        activation = try reader.read(.actFn, default: activation)
        attentionHeadDim = try reader.read(optional: .attentionHeadDim, default: attentionHeadDim)
        normNumGroups = try reader.read(.normNumGroups, default: normNumGroups)
        attnNormNumGroups = try reader.read(optional: .attnNormNumGroups)
        normEps = try reader.read(.normEps, default: normEps)
        resnetTimeScaleShift = try reader.read(.resnetTimeScaleShift, default: resnetTimeScaleShift)
        addAttention = try reader.read(.addAttention, default: addAttention)

        let midBlock: String? = try reader.read(optional: .midBlockType, default: "UNetMidBlock2D")
        hasMidBlock = midBlock != nil
        // Accept any value: only the learned time embedding uses it.
        let _: Int? = try reader.read(optional: .numTrainTimesteps)
        let conventions = [
            (Key.timeEmbeddingType, "positional"), (.downsampleType, "conv"), (.upsampleType, "conv"),
        ]
        var unsupported: ConfigError?
        for (key, supported) in conventions {
            let found = try reader.read(key, default: supported)
            if found != supported {
                unsupported = ModelChecks.unsupported(key.rawValue, "'\(found)'", supported)
            }
        }
        // Report features of diffusers that are not implemented by name; never ignore them.
        do throws(ConfigError) {
            if let unsupported { throw unsupported }
            if let midBlock, midBlock != "UNetMidBlock2D" {
                throw ModelChecks.unsupported("mid_block_type", "'\(midBlock)'", "UNetMidBlock2D or null")
            }
            for key in [Key.classEmbedType, .numClassEmbeds] {
                guard let found = reader.child(key), found.value != .null else { continue }
                throw ModelChecks.unsupported(key.rawValue, found.found, "null (no class conditioning)")
            }
            try validate()
        } catch {
            throw error.placed(in: node, under: path)
        }
    }

    package var className: String { "UNet2DModel" }

    package var node: ConfigNode {
        .mapping([
            "act_fn": .string(activation.rawValue),
            "add_attention": .bool(addAttention),
            "attention_head_dim": .integer(attentionHeadDim),
            "attn_norm_num_groups": .integer(attnNormNumGroups),
            "block_out_channels": .integers(blockOutChannels),
            "center_input_sample": .bool(centerInputSample),
            "class_embed_type": .null,
            "down_block_types": .strings(downBlockTypes.map(\.rawValue)),
            "downsample_padding": .integer(downsamplePadding),
            "downsample_type": .string("conv"),
            "dropout": .number(dropout),
            "flip_sin_to_cos": .bool(flipSinToCos),
            "freq_shift": .integer(freqShift),
            "in_channels": .integer(inChannels),
            "layers_per_block": .integer(layersPerBlock),
            "mid_block_scale_factor": .number(midBlockScaleFactor),
            "mid_block_type": .string(hasMidBlock ? "UNetMidBlock2D" : nil),
            "norm_eps": .number(normEps),
            "norm_num_groups": .integer(normNumGroups),
            "num_class_embeds": .null,
            "num_train_timesteps": .null,
            "out_channels": .integer(outChannels),
            "resnet_time_scale_shift": .string(resnetTimeScaleShift.rawValue),
            "sample_size": sampleSize?.node ?? .null,
            "time_embedding_dim": .integer(timeEmbeddingDim),
            "time_embedding_type": .string("positional"),
            "up_block_types": .strings(upBlockTypes.map(\.rawValue)),
            "upsample_type": .string("conv"),
        ])
    }
}

extension UNet2DConfig {
    /// Width of the timestep embedding: `time_embedding_dim`, or four times the first level's channels.
    package var timeEmbedDim: Int { timeEmbeddingDim ?? blockOutChannels[0] * 4 }

    /// Attention heads over `channels` channels.
    package func headCount(channels: Int) -> Int { channels / (attentionHeadDim ?? channels) }

    /// Groups of the norm before the middle block's attention; nil for no norm, as in diffusers for
    /// `scale_shift` without `attn_norm_num_groups`.
    package var midAttentionNumGroups: Int? {
        attnNormNumGroups ?? (resnetTimeScaleShift == .add ? normNumGroups : nil)
    }

    /// Differences to a model whose weights are incompatible with this one or compute something else: one
    /// phrase per differing key. `sample_size` and `dropout` are ignored, and equivalent values are not
    /// reported.
    package func differences(from other: UNet2DConfig) -> [String] {
        mathematics.node.differences(from: other.mathematics.node)
    }

    private var mathematics: UNet2DConfig {
        var config = self
        config.sampleSize = nil
        config.dropout = 0
        config.activation = .silu
        config.timeEmbeddingDim = timeEmbedDim
        config.attnNormNumGroups = midAttentionNumGroups
        return config
    }

    /// Height and width must be multiples of this factor: 2 for each level except the last.
    package var downsamplingFactor: Int { 1 << (blockOutChannels.count - 1) }

    package func validate() throws(ConfigError) {
        try ModelChecks.positive(inChannels, "in_channels")
        try ModelChecks.positive(outChannels, "out_channels")
        try ModelChecks.positive(layersPerBlock, "layers_per_block", limit: ModelChecks.mostLayers)
        try ModelChecks.levels(
            channels: blockOutChannels, down: downBlockTypes.count, up: upBlockTypes.count,
            groups: normNumGroups)
        try ModelChecks.positive(timeEmbedDim, "time_embedding_dim", limit: 4 * ModelChecks.mostChannels)
        try validateTimeEmbedding()
        try validateAttention()
        if ![0, 1].contains(downsamplePadding) {
            throw ModelChecks.unsupported("downsample_padding", "\(downsamplePadding)", "0 or 1")
        }
        if !(dropout >= 0 && dropout < 1) {
            throw ConfigError(
                .invalidValue, at: ["dropout"], "found \(dropout), expected 0 or more and less than 1")
        }
        if !(normEps > 0 && normEps.isFinite) {
            throw ConfigError(.invalidValue, at: ["norm_eps"], "found \(normEps), expected more than 0")
        }
        if !(midBlockScaleFactor.isFinite && midBlockScaleFactor != 0) {
            throw ConfigError(
                .invalidValue, at: ["mid_block_scale_factor"],
                "found \(midBlockScaleFactor), expected other than 0")
        }
        if let size = sampleSize {
            let factor = downsamplingFactor
            for side in [size.height, size.width] {
                try ModelChecks.positive(side, "sample_size")
                if side % factor == 0 { continue }
                throw ConfigError(
                    .invalidValue, at: ["sample_size"],
                    "found \(side), expected a multiple of \(factor): \(blockOutChannels.count) levels halve"
                        + " the picture \(blockOutChannels.count - 1) times")
            }
        }
    }

    private func validateTimeEmbedding() throws(ConfigError) {
        let width = blockOutChannels[0]
        if width % 2 != 0 {
            throw ConfigError(
                .invalidValue, at: ["block_out_channels"],
                "the first level has \(width) channels, expected an even number for the timestep embedding")
        }
        if freqShift < 0 || freqShift >= width / 2 {
            throw ConfigError(
                .invalidValue, at: ["freq_shift"],
                "found \(freqShift), expected 0 or more and less than \(width / 2)")
        }
    }

    private func validateAttention() throws(ConfigError) {
        var attended = Set<Int>()
        for (channels, type) in zip(blockOutChannels, downBlockTypes) where type == .attention {
            attended.insert(channels)
        }
        for (channels, type) in zip(blockOutChannels.reversed(), upBlockTypes) where type == .attention {
            attended.insert(channels)
        }
        if hasMidBlock, addAttention { attended.insert(blockOutChannels[blockOutChannels.count - 1]) }
        if let width = attentionHeadDim {
            try ModelChecks.positive(width, "attention_head_dim")
            for channels in attended.sorted() where channels % width != 0 {
                throw ConfigError(
                    .invalidValue, at: ["attention_head_dim"],
                    "\(channels) channels with attention do not divide into heads of \(width)")
            }
        }
        if let groups = attnNormNumGroups {
            try ModelChecks.positive(groups, "attn_norm_num_groups")
            let channels = blockOutChannels[blockOutChannels.count - 1]
            if channels % groups != 0 {
                throw ConfigError(
                    .invalidValue, at: ["attn_norm_num_groups"],
                    "the middle block's \(channels) channels do not divide by \(groups) groups")
            }
        }
    }
}
