import FileFormats
import Foundation
import Support
import TensorCore

// Writing the first stage of a pipeline.

extension ModelFolder {
    /// Copies an autoencoder into a pipeline: safetensors files unchanged, files of PyTorch as safetensors, and
    /// the configuration with the scaling that the diffusion model was trained with.
    ///
    /// diffusers' LDMPipeline divides latents by `scaling_factor` but ignores `shift_factor`, so a shift is
    /// folded into the weights; see `AutoencoderKL.absorbingShift`.
    ///
    /// - Parameter trained: scaling and shift that replace the autoencoder's own.
    /// - Returns: the autoencoder's class.
    func copyAutoencoder(to target: ModelFolder, trained: FirstStageReference?) throws -> String {
        switch try readModelConfig() {
        case .unet:
            throw ModelFolderError(path, "holds a UNet2DModel, expected an AutoencoderKL or a VQModel")
        case .autoencoderKL(var config):
            if let trained {
                (config.scalingFactor, config.shiftFactor) = (trained.scalingFactor, trained.shiftFactor)
            }
            if let shift = config.shiftFactor, shift != 0 {
                let model = try AutoencoderKL(config)
                try loadWeights(into: model.store)
                let shiftless = try model.absorbingShift()
                try target.save(shiftless.config, shiftless.store)
            } else {
                config.shiftFactor = nil
                try copyFiles(to: target, config) { try AutoencoderKL(config).store }
            }
            return config.className
        case .vqModel(var config):
            if let trained { config.scalingFactor = trained.scalingFactor }
            try copyFiles(to: target, config) { try VQModel(config).store }
            return config.className
        }
    }

    /// - Parameter store: creates the model's parameters, for weights that are not copied unchanged.
    private func copyFiles(
        to target: ModelFolder, _ config: some DiffusersConfig, store: () throws -> ParameterStore
    ) throws {
        let weights = try WeightFiles(path: path)
        guard weights.files.allSatisfy({ $0 is SafetensorsFile }) else {
            let source = try WeightSource(WeightMixture(of: self), fitting: store())
            return try target.save(config, source, WeightFormat())
        }
        try target.make()
        try config.write(to: target.file(Self.configFile))
        // A single file gets the standard name; shards keep the names in their index.
        let names =
            weights.files.count == 1
            ? [Self.weightsFile] : weights.files.map { ($0.path as NSString).lastPathComponent }
        var map: [String: String] = [:]
        for (file, name) in zip(weights.files, names) {
            // The cache of a model hub consists of symbolic links.
            let original = URL(fileURLWithPath: file.path).resolvingSymlinksInPath().path
            do {
                try FileManager.default.copyItem(atPath: original, toPath: target.file(name))
            } catch {
                throw ModelFolderError(
                    original, "cannot be copied to \(target.path): \(systemReason(of: error))")
            }
            for tensor in file.names { map[tensor] = name }
        }
        if names.count > 1 {
            let bytes = try weights.names.reduce(0) { try $0 + weights.info(of: $1).byteRange.count }
            try SafetensorsIndex(weightMap: map, totalSize: bytes)
                .write(to: target.file(Self.weightsFile + ".index.json"))
        }
    }
}

extension AutoencoderKL {
    /// The same autoencoder without a shift: its latents are this autoencoder's latents minus `shift_factor`.
    ///
    /// The 1×1 convolutions at both ends of the latent space absorb the shift s: s is subtracted from the
    /// mean's bias in quant_conv, and post_quant_conv, W·z + b, becomes W·(z + s) + b. Missing convolutions
    /// are inserted as identities.
    func absorbingShift() throws -> AutoencoderKL {
        let shift = Float(config.shiftFactor ?? 0)
        var shiftless = config
        (shiftless.shiftFactor, shiftless.useQuantConv, shiftless.usePostQuantConv) = (nil, true, true)
        let result = try AutoencoderKL(shiftless)
        let own = Dictionary(uniqueKeysWithValues: store.parameters.map { ($0.name, $0) })
        for parameter in result.store.parameters {
            if let source = own[parameter.name] {
                _ = parameter.values.update(from: source.values)
            } else if parameter.shape.count == 4 {  // [C, C, 1, 1]
                for i in 0..<parameter.shape[0] { parameter.values[i * parameter.shape[1] + i] = 1 }
            }
        }
        let named = Dictionary(uniqueKeysWithValues: result.store.parameters.map { ($0.name, $0.values) })
        guard let meanBias = named["quant_conv.bias"], let weight = named["post_quant_conv.weight"],
            let bias = named["post_quant_conv.bias"]
        else { preconditionFailure("an AutoencoderKL with both convolutions has their parameters") }
        let channels = config.latentChannels
        for o in 0..<channels {
            meanBias[o] -= shift
            bias[o] += shift * (0..<channels).reduce(0) { $0 + weight[o * channels + $1] }
        }
        result.store.valuesChanged()
        return result
    }
}
