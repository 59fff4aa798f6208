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

/// The middle block type of a U-Net.
package enum UNetMidBlockType: String, ConfigChoice {
    case plain = "UNetMidBlock2D"
}

/// How residual blocks apply the timestep embedding: added, or as scale and shift after the norm.
package enum TimeScaleShift: String, ConfigChoice {
    case add = "default"
    case scaleShift = "scale_shift"
}

/// How a class-conditional U-Net embeds a class, if not by a learned vector for each class.
package enum ClassEmbeddingType: String, ConfigChoice {
    /// The class is a number, embedded like a timestep.
    case timestep
}

/// The configuration of diffusers' `UNet2DModel`, with the same keys, defaults and semantics; `keys` describes
/// them.
///
/// Source: diffusers 0.42, models/unets/unet_2d.py.
package struct UNet2DConfig: DiffusersConfig {
    package var sampleSize: SpatialSize?
    package var inChannels = 3
    package var outChannels = 3
    package var centerInputSample = false
    package var timeEmbeddingDim: Int?
    package var freqShift = 0
    package var flipSinToCos = true
    package var downBlockTypes: [UNetDownBlockType] = [.plain, .attention, .attention, .attention]
    package var midBlockType: UNetMidBlockType? = .plain
    package var upBlockTypes: [UNetUpBlockType] = [.attention, .attention, .attention, .plain]
    package var blockOutChannels = [224, 448, 672, 896]
    package var layersPerBlock = 2
    package var midBlockScaleFactor = 1.0
    package var downsamplePadding = 1
    package var dropout = 0.0
    package var activation = Activation.silu
    package var attentionHeadDim: Int? = 8
    package var normNumGroups = 32
    package var attnNormNumGroups: Int?
    package var normEps = 1e-5
    package var resnetTimeScaleShift = TimeScaleShift.add
    package var addAttention = true
    package var classEmbedType: ClassEmbeddingType?
    /// Number of class embeddings; one more than the classes if the model has a null class for guidance.
    package var numClassEmbeds: Int?
    /// Names of the classes that the model was trained on; diffusers ignores the key.
    package var labelNames: [String] = []

    package init() {}

    package static let classNames = ["UNet2DModel"]

    package static var keys: [ConfigKey<UNet2DConfig>] {
        [
            .init("act_fn", \.activation, .otherModel, "Activation; silu and swish are the same."),
            .init("add_attention", \.addAttention, .otherTensors, "Whether the middle block has attention."),
            .init(
                "attention_head_dim", \.attentionHeadDim, .channels, .otherModel,
                "Width of an attention head in channels; null for one head."),
            .init(
                "attn_norm_num_groups", \.attnNormNumGroups, .channels, .otherModel,
                "Groups of the norm before the middle block's attention.",
                defaultText: "norm_num_groups; no norm for scale_shift"),
            .init(
                "block_out_channels", \.blockOutChannels, .channels, .otherTensors,
                "Channels of each level, from the highest resolution to the lowest."),
            .init(
                "center_input_sample", \.centerInputSample, .otherModel,
                "Map the input from [0, 1] to [-1, 1]."),
            .init(
                "class_embed_type", \.classEmbedType, .otherTensors,
                "null: a learned vector for each class; timestep: the class is embedded like a timestep."),
            .init(
                "down_block_types", \.downBlockTypes, .otherTensors,
                "Block type of each down level; the name says whether it has attention."),
            .init(
                "downsample_padding", \.downsamplePadding, .within(0...1), .otherModel,
                "Padding of stride-2 convolutions: 1 is symmetric, 0 pads the bottom and the right only."),
            .fixed("downsample_type", .string("conv"), .otherTensors),
            .init("dropout", \.dropout, .from(0, below: 1), .harmless, "Dropout rate in residual blocks."),
            .init(
                "flip_sin_to_cos", \.flipSinToCos, .otherModel,
                "Whether cosines precede sines in the timestep embedding."),
            .init(
                "freq_shift", \.freqShift, .atLeast(0), .otherModel,
                "Frequency shift of the timestep embedding: 0, or 1 in old models."),
            .init("in_channels", \.inChannels, .channels, .otherTensors, "Channels of the input."),
            .init(
                "layers_per_block", \.layersPerBlock, .layers, .otherTensors,
                "Residual blocks of a down level; an up level has one more."),
            .init(
                "mid_block_scale_factor", \.midBlockScaleFactor, .where("a number other than 0") { $0 != 0 },
                .otherModel, "Divisor of the residual sums in the middle block."),
            .init(
                "mid_block_type", \.midBlockType, .otherTensors, "The middle block; null for none."),
            .init("norm_eps", \.normEps, .above(0), .otherModel, "Added to the variance in norms."),
            .init("norm_num_groups", \.normNumGroups, .channels, .otherModel, "Groups of GroupNorm."),
            .init(
                "num_class_embeds", \.numClassEmbeds, .channels, .otherTensors,
                "Learned class vectors of a class-conditional model: the number of classes, plus 1 for the null class with"
                    + " diffusion.label_dropout. null for an unconditional model."),
            // diffusers uses it for its learned timestep embedding only.
            .ineffective("num_train_timesteps", Int?.none, .otherTensors),
            .init(
                "out_channels", \.outChannels, .channels, .otherTensors,
                "Channels of the output; the same as in_channels for training."),
            .init(
                "resnet_time_scale_shift", \.resnetTimeScaleShift, .otherTensors,
                "How residual blocks apply the timestep embedding: added, or as scale and shift."),
            .init(
                "sample_size", \.sampleSize, .sides, .harmless,
                "Size of input and output; null if the model accepts any."),
            .init(
                "time_embedding_dim", \.timeEmbeddingDim, .within(1...4 * ModelChecks.mostChannels),
                .otherTensors,
                "Width of the timestep embedding.", defaultText: "4 times the first level's channels"),
            .fixed("time_embedding_type", .string("positional"), .otherTensors),
            .init(
                "up_block_types", \.upBlockTypes, .otherTensors,
                "Block type of each up level; the name says whether it has attention."),
            .fixed("upsample_type", .string("conv"), .otherTensors),
            .init(
                "_label_names", \.labelNames, .harmless,
                "Names of the classes in the order of their embeddings; set from the training data.",
                omitted: { $0.labelNames.isEmpty }),
        ]
    }
}

extension UNet2DConfig {
    /// Width of the timestep embedding: `time_embedding_dim`, or four times the first level's channels.
    package var timeEmbedDim: Int { timeEmbeddingDim ?? blockOutChannels[0] * 4 }

    /// Whether the model's prediction depends on a class.
    package var isConditional: Bool { classEmbedType != nil || numClassEmbeds != nil }

    /// Index of the embedding that stands for no class, which classifier-free guidance requires: the one after
    /// the classes. nil if there is none, or if the number of classes is unknown.
    package var nullClass: Int? {
        guard let numClassEmbeds, !labelNames.isEmpty, numClassEmbeds > labelNames.count else { return nil }
        return labelNames.count
    }

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
        config.labelNames = []
        return config
    }

    /// Height and width must be multiples of this factor: 2 for each level except the last.
    package var downsamplingFactor: Int { 1 << (blockOutChannels.count - 1) }

    package func check() throws(ConfigError) {
        try ModelChecks.levels(
            channels: blockOutChannels, down: downBlockTypes.count, up: upBlockTypes.count,
            groups: normNumGroups)
        try require(
            classEmbedType == nil || numClassEmbeds == nil, "num_class_embeds",
            "only applies to class_embed_type: null")
        try require(
            numClassEmbeds.map { $0 >= labelNames.count } ?? true, "num_class_embeds",
            "found \(numClassEmbeds ?? 0), expected at least \(labelNames.count), the number of classes")
        let width = blockOutChannels[0]
        try require(
            width % 2 == 0, "block_out_channels",
            "the first level has \(width) channels, expected an even number for the timestep embedding")
        try require(
            freqShift < width / 2, "freq_shift",
            "found \(freqShift), expected 0 or more and less than \(width / 2)")
        try checkAttention()
        for side in sampleSize.map({ [$0.height, $0.width] }) ?? [] {
            try require(
                side % downsamplingFactor == 0, "sample_size",
                "found \(side), expected a multiple of \(downsamplingFactor): \(blockOutChannels.count)"
                    + " levels halve the picture \(blockOutChannels.count - 1) times")
        }
    }

    private func checkAttention() throws(ConfigError) {
        var attended = Set<Int>()
        for (channels, type) in zip(blockOutChannels, downBlockTypes) where type == .attention {
            attended.insert(channels)
        }
        for (channels, type) in zip(blockOutChannels.reversed(), upBlockTypes) where type == .attention {
            attended.insert(channels)
        }
        if midBlockType != nil, addAttention { attended.insert(blockOutChannels[blockOutChannels.count - 1]) }
        if let width = attentionHeadDim {
            for channels in attended.sorted() where channels % width != 0 {
                throw ConfigError(
                    .invalidValue, at: ["attention_head_dim"],
                    "\(channels) channels with attention are not divisible into heads of \(width)")
            }
        }
        let channels = blockOutChannels[blockOutChannels.count - 1]
        if let groups = attnNormNumGroups {
            try require(
                channels % groups == 0, "attn_norm_num_groups",
                "the middle block's \(channels) channels are not divisible by \(groups) groups")
        }
    }
}
