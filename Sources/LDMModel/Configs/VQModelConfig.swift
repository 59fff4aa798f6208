import FileFormats

/// The configuration of diffusers' `VQModel`, with the same keys, semantics and, except for `scaling_factor`,
/// defaults.
///
/// Source: diffusers 0.42, models/autoencoders/vq_model.py. The structure is that of `AutoencoderKLConfig`,
/// with a codebook between encoder and decoder instead of a Gaussian.
package struct VQModelConfig: DiffusersConfig {
    package var inChannels = 3
    package var outChannels = 3
    package var downBlockTypes: [EncoderBlockType] = [.plain]
    package var upBlockTypes: [DecoderBlockType] = [.plain]
    /// Channels of each level, from the highest resolution to the lowest.
    package var blockOutChannels = [64]
    /// Residual blocks of an encoder level; a decoder level has one more.
    package var layersPerBlock = 1
    package var activation = Activation.silu
    package var latentChannels = 3
    /// Training image size; informative.
    package var sampleSize = SpatialSize(32)
    /// Number of codebook vectors.
    package var numVQEmbeddings = 256
    package var normNumGroups = 32
    /// Width of a codebook vector; nil means `latentChannels`. See `codebookWidth`.
    package var vqEmbedDim: Int?
    /// Latents are multiplied by this before diffusion, and divided by it before decoding.
    ///
    /// The only default that differs from diffusers, which has 0.18215 as for an AutoencoderKL: the VQ models
    /// of latent diffusion were trained without scaling, and their files do not have the key. It is always
    /// written.
    package var scalingFactor = 1.0
    /// Whether the middle blocks have attention.
    package var midBlockAddAttention = true
    /// Informative: here the program chooses the first stage's precision.
    package var forceUpcast = false

    package init() {}

    enum Key: String, CaseIterable {
        case actFn = "act_fn"
        case blockOutChannels = "block_out_channels"
        case downBlockTypes = "down_block_types"
        case forceUpcast = "force_upcast"
        case inChannels = "in_channels"
        case latentChannels = "latent_channels"
        case layersPerBlock = "layers_per_block"
        case lookupFromCodebook = "lookup_from_codebook"
        case midBlockAddAttention = "mid_block_add_attention"
        case normNumGroups = "norm_num_groups"
        case normType = "norm_type"
        case numVQEmbeddings = "num_vq_embeddings"
        case outChannels = "out_channels"
        case sampleSize = "sample_size"
        case scalingFactor = "scaling_factor"
        case upBlockTypes = "up_block_types"
        case vqEmbedDim = "vq_embed_dim"
    }

    package init(config node: ConfigNode, path: [String] = []) throws(ConfigError) {
        try Self.checkClassName(node, path: path, expected: ["VQModel"])
        let reader = try ConfigReader<Key>(node, path: path, ignoringUnderscored: true)
        inChannels = try reader.read(.inChannels, default: inChannels)
        outChannels = try reader.read(.outChannels, default: outChannels)
        downBlockTypes = try reader.read(.downBlockTypes, default: downBlockTypes)
        upBlockTypes = try reader.read(.upBlockTypes, default: upBlockTypes)
        blockOutChannels = try reader.read(.blockOutChannels, default: blockOutChannels)
        layersPerBlock = try reader.read(.layersPerBlock, default: layersPerBlock)
        activation = try reader.read(.actFn, default: activation)
        latentChannels = try reader.read(.latentChannels, default: latentChannels)
        sampleSize = try reader.read(.sampleSize, default: sampleSize)
        numVQEmbeddings = try reader.read(.numVQEmbeddings, default: numVQEmbeddings)
        normNumGroups = try reader.read(.normNumGroups, default: normNumGroups)
        vqEmbedDim = try reader.read(optional: .vqEmbedDim)
        scalingFactor = try reader.read(.scalingFactor, default: scalingFactor)
        midBlockAddAttention = try reader.read(.midBlockAddAttention, default: midBlockAddAttention)
        forceUpcast = try reader.read(.forceUpcast, default: forceUpcast)
        let normType = try reader.read(.normType, default: "group")
        let lookup = try reader.read(.lookupFromCodebook, default: false)
        do throws(ConfigError) {
            if normType != "group" { throw ModelChecks.unsupported("norm_type", "'\(normType)'", "group") }
            if lookup { throw ModelChecks.unsupported("lookup_from_codebook", "true", "false") }
            try validate()
        } catch {
            throw error.placed(in: node, under: path)
        }
    }

    package var className: String { "VQModel" }

    package var node: ConfigNode {
        .mapping([
            "act_fn": .string(activation.rawValue),
            "block_out_channels": .integers(blockOutChannels),
            "down_block_types": .strings(downBlockTypes.map(\.rawValue)),
            "force_upcast": .bool(forceUpcast),
            "in_channels": .integer(inChannels),
            "latent_channels": .integer(latentChannels),
            "layers_per_block": .integer(layersPerBlock),
            "lookup_from_codebook": .bool(false),
            "mid_block_add_attention": .bool(midBlockAddAttention),
            "norm_num_groups": .integer(normNumGroups),
            "norm_type": .string("group"),
            "num_vq_embeddings": .integer(numVQEmbeddings),
            "out_channels": .integer(outChannels),
            "sample_size": sampleSize.node,
            "scaling_factor": .number(scalingFactor),
            "up_block_types": .strings(upBlockTypes.map(\.rawValue)),
            "vq_embed_dim": .integer(vqEmbedDim),
        ])
    }

    /// f = 2^(levels - 1), the ratio of image size to latent size along each side.
    package var downsamplingFactor: Int { 1 << (blockOutChannels.count - 1) }

    /// Width of a codebook vector, which is also the number of channels of a latent.
    package var codebookWidth: Int { vqEmbedDim ?? latentChannels }

    package func validate() throws(ConfigError) {
        try ModelChecks.positive(inChannels, "in_channels")
        try ModelChecks.positive(outChannels, "out_channels")
        try ModelChecks.positive(latentChannels, "latent_channels")
        try ModelChecks.positive(layersPerBlock, "layers_per_block", limit: ModelChecks.mostLayers)
        try ModelChecks.positive(numVQEmbeddings, "num_vq_embeddings", limit: 1 << 24)
        try ModelChecks.positive(codebookWidth, "vq_embed_dim")
        try ModelChecks.levels(
            channels: blockOutChannels, down: downBlockTypes.count, up: upBlockTypes.count,
            groups: normNumGroups)
        try ModelChecks.scaling(scalingFactor)
        try ModelChecks.positive(sampleSize.height, "sample_size")
        try ModelChecks.positive(sampleSize.width, "sample_size")
    }
}
