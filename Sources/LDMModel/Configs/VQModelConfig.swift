import FileFormats

/// The configuration of diffusers' `VQModel`, with the same keys, semantics and, except for `scaling_factor`,
/// defaults.
///
/// Source: diffusers 0.42, models/autoencoders/vq_model.py. The structure is that of `AutoencoderKLConfig`,
/// with a codebook between encoder and decoder instead of a Gaussian.
package struct VQModelConfig: AutoencoderConfig {
    package var inChannels = 3
    package var outChannels = 3
    package var downBlockTypes: [EncoderBlockType] = [.plain]
    package var upBlockTypes: [DecoderBlockType] = [.plain]
    package var blockOutChannels = [64]
    package var layersPerBlock = 1
    package var activation = Activation.silu
    package var latentChannels = 3
    package var sampleSize = SpatialSize(32)
    package var numVQEmbeddings = 256
    package var normNumGroups = 32
    package var vqEmbedDim: Int?
    /// Latents are multiplied by this before diffusion, and divided by it before decoding.
    ///
    /// The only default that differs from diffusers, which has 0.18215 as for an AutoencoderKL: the VQ models
    /// of latent diffusion were trained without scaling, and their files do not have the key. It is always
    /// written.
    package var scalingFactor = 1.0
    package var midBlockAddAttention = true
    package var forceUpcast = false

    package init() {}

    package static let classNames = ["VQModel"]

    package static var keys: [ConfigKey<VQModelConfig>] {
        withCommonKeys([
            .fixed("lookup_from_codebook", .bool(false), .otherModel),
            .fixed("norm_type", .string("group"), .otherTensors),
            .init(
                "num_vq_embeddings", \.numVQEmbeddings, .within(1...1 << 24), .otherTensors,
                "Number of codebook vectors."),
            .init(
                "vq_embed_dim", \.vqEmbedDim, .channels, .otherTensors, "Width of a codebook vector.",
                defaultText: "latent_channels"),
        ])
    }

    /// Width of a codebook vector, which is also the number of channels of a latent.
    package var codebookWidth: Int { vqEmbedDim ?? latentChannels }
}
