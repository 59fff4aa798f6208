import FileFormats
import Support

/// The first stage of latent-diffusion (`AutoencoderKL`, `VQModel`, `VQModelInterface`) as diffusers' model.
///
/// - Source: ldm/modules/diffusionmodules/model.py and ldm/models/autoencoder.py in
///   github.com/CompVis/latent-diffusion.
struct CompVisAutoencoder {
    enum Config {
        case autoencoderKL(AutoencoderKLConfig)
        case vqModel(VQModelConfig)
    }

    let config: Config
    let tensors: RenamedTensors

    /// Ratio of image size to latent size.
    var downsamplingFactor: Int {
        switch config {
        case .autoencoderKL(let config): return config.downsamplingFactor
        case .vqModel(let config): return config.downsamplingFactor
        }
    }

    /// - Parameters:
    ///   - scale: latents are multiplied by it for diffusion.
    ///   - imageSize: side of the images in training; nil if unknown.
    init(_ source: RenamedModule, scale: Double, imageSize: Int?) throws {
        var module = source
        let convolution = try module.shape("encoder.conv_in.weight")
        let output = try module.shape("decoder.conv_out.weight")
        let latent = try module.shape("decoder.conv_in.weight")
        guard convolution.count == 4, output.count == 4, latent.count == 4 else {
            throw ModelFolderError(module.tensors.path, "\(module.prefix)encoder is not one of images")
        }

        var channels: [Int] = []
        while module.has("encoder.down.\(channels.count).block.0.conv1.weight") {
            let level = channels.count
            let (old, new) = ("encoder.down.\(level)", "encoder.down_blocks.\(level)")
            var layer = 0
            var width = 0
            while let found = try module.block("\(old).block.\(layer)", "\(new).resnets.\(layer)") {
                (width, layer) = (found, layer + 1)
            }
            module.layer("\(old).downsample.conv", "\(new).downsamplers.0.conv")
            channels.append(width)
        }
        let count = channels.count
        var layers = 0
        while module.has("encoder.down.0.block.\(layers).conv1.weight") { layers += 1 }
        // The decoder's levels are numbered from the highest resolution, diffusers' from the lowest.
        for level in 0..<count {
            let (old, new) = ("decoder.up.\(level)", "decoder.up_blocks.\(count - 1 - level)")
            for layer in 0...layers {
                _ = try module.block("\(old).block.\(layer)", "\(new).resnets.\(layer)")
            }
            module.layer("\(old).upsample.conv", "\(new).upsamplers.0.conv")
        }
        for part in ["encoder", "decoder"] {
            module.layer("\(part).conv_in", "\(part).conv_in")
            _ = try module.block("\(part).mid.block_1", "\(part).mid_block.resnets.0")
            _ = try module.block("\(part).mid.block_2", "\(part).mid_block.resnets.1")
            for (old, new) in [
                ("norm", "group_norm"), ("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0"),
            ] { module.layer("\(part).mid.attn_1.\(old)", "\(part).mid_block.attentions.0.\(new)") }
            module.layer("\(part).norm_out", "\(part).conv_norm_out")
            module.layer("\(part).conv_out", "\(part).conv_out")
        }
        module.layer("quant_conv", "quant_conv")
        module.layer("post_quant_conv", "post_quant_conv")
        let isQuantized = module.layer("quantize.embedding", "quantize.embedding")
        try module.checkComplete(as: isQuantized ? "VQModel" : "AutoencoderKL")

        var keys: JSONObject = [
            "in_channels": .integer(convolution[1]), "out_channels": .integer(output[0]),
            "block_out_channels": .array(channels.map { .integer($0) }), "layers_per_block": .integer(layers),
            "down_block_types": .array(channels.map { _ in "DownEncoderBlock2D" }),
            "up_block_types": .array(channels.map { _ in "UpDecoderBlock2D" }),
            "latent_channels": .integer(latent[1]), "norm_num_groups": 32, "scaling_factor": .number(scale),
            "mid_block_add_attention": .bool(module.has("encoder.mid.attn_1.q.weight")),
        ]
        if let imageSize { keys["sample_size"] = .integer(imageSize) }
        if isQuantized {
            let codebook = try module.shape("quantize.embedding.weight")
            guard codebook.count == 2 else {
                throw ModelFolderError(module.tensors.path, "\(module.prefix)quantize.embedding has no rows")
            }
            keys["num_vq_embeddings"] = .integer(codebook[0])
            keys["vq_embed_dim"] = .integer(codebook[1])
        }
        let node = ConfigNode(.object(keys), source: source.tensors.path)
        config =
            isQuantized
            ? .vqModel(try VQModelConfig(config: node, path: []))
            : .autoencoderKL(try AutoencoderKLConfig(config: node, path: []))
        tensors = module.tensors
    }

    /// Writes the model to a folder.
    func save(to folder: ModelFolder, _ format: WeightFormat) throws {
        switch config {
        case .autoencoderKL(let config):
            try folder.save(config, WeightSource(tensors, fitting: AutoencoderKL(config).store), format)
        case .vqModel(let config):
            try folder.save(config, WeightSource(tensors, fitting: VQModel(config).store), format)
        }
    }
}

extension RenamedModule {
    /// Maps a residual block, if it exists.
    ///
    /// - Returns: its output channels; nil if there is none.
    fileprivate mutating func block(_ old: String, _ new: String) throws -> Int? {
        guard has("\(old).conv1.weight") else { return nil }
        for name in ["norm1", "conv1", "norm2", "conv2"] { layer("\(old).\(name)", "\(new).\(name)") }
        layer("\(old).nin_shortcut", "\(new).conv_shortcut")
        return try shape("\(old).conv1.weight").first
    }
}
