import FileFormats
import Foundation
import Support
import TensorCore

/// Why a model's folder cannot be used. The message is one line that lists all mismatches.
package struct ModelFolderError: ReportableError, Equatable, Sendable {
    /// The folder or file.
    package var path: String
    /// A problem other than mismatched tensors, or empty.
    package var detail: String
    /// Parameters of the model that are not in the files.
    package var missing: [String] = []
    /// Tensors in the files that are not in the model.
    package var unexpected: [String] = []
    /// Tensors with another shape or a type that is not floating-point, with the expected one.
    package var misshapen: [String] = []
    /// The `errno` of the operation; 0 for any other reason.
    package var code: Int32

    package init(_ path: String, _ detail: String = "", code: Int32 = 0) {
        (self.path, self.detail, self.code) = (path, detail, code)
    }

    package var exitStatus: Int32 { ExitStatus.forSystemError(code, otherwise: ExitStatus.refused) }

    /// One line; long lists are cut to their first eight entries.
    package var message: String {
        var parts = detail.isEmpty ? [] : [detail]
        for (title, names) in [("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen)]
        where !names.isEmpty {
            parts.append("\(names.count) \(title): \(shortList(names))")
        }
        return ("\(path): " + parts.joined(separator: "; ")).oneLine()
    }
}

/// The configuration of a folder, by model class.
package enum ModelConfig: Sendable, Equatable {
    case unet(UNet2DConfig)
    case autoencoderKL(AutoencoderKLConfig)
    case vqModel(VQModelConfig)
}

/// A model in diffusers' layout on disk: `config.json`, and the weights in
/// `diffusion_pytorch_model.safetensors` or in shards with an index.
package struct ModelFolder: Sendable {
    package let path: String

    /// Names of the files that `save` writes.
    package static let configFile = "config.json"
    package static let weightsFile = "diffusion_pytorch_model.safetensors"

    package init(_ path: String) { self.path = path }

    func file(_ name: String) -> String { (path as NSString).appendingPathComponent(name) }

    // MARK: Configuration

    /// Reads `config.json`; its `_class_name` determines the class.
    ///
    /// - Throws: `ModelFolderError` or `ConfigError`.
    package func readModelConfig() throws -> ModelConfig {
        let node = try readConfigNode()
        guard let name = node["_class_name"] else {
            throw ModelFolderError(
                file(Self.configFile),
                "has no _class_name; expected UNet2DModel, AutoencoderKL or VQModel")
        }
        switch name.value {
        case .string("UNet2DModel"): return .unet(try UNet2DConfig(config: node, path: []))
        case .string("AutoencoderKL"): return .autoencoderKL(try AutoencoderKLConfig(config: node, path: []))
        case .string("VQModel"): return .vqModel(try VQModelConfig(config: node, path: []))
        default:
            throw ModelFolderError(
                file(Self.configFile),
                "_class_name is \(name.found); expected UNet2DModel, AutoencoderKL or VQModel")
        }
    }

    /// - Throws: also for a model of another class.
    package func readUNetConfig() throws -> UNet2DConfig {
        guard case .unet(let config) = try readModelConfig() else {
            throw ModelFolderError(path, "holds an autoencoder, expected a UNet2DModel")
        }
        return config
    }

    /// - Throws: also for a model of another class.
    package func readAutoencoderKLConfig() throws -> AutoencoderKLConfig {
        guard case .autoencoderKL(let config) = try readModelConfig() else {
            throw ModelFolderError(path, "holds a different model, expected an AutoencoderKL")
        }
        return config
    }

    private func readConfigNode() throws -> ConfigNode {
        let manager = FileManager.default
        guard !manager.fileExists(atPath: file(Self.configFile)) else {
            return Self.withoutAverageSettings(try ConfigNode(jsonFile: file(Self.configFile)))
        }
        guard manager.fileExists(atPath: path) else {
            throw ModelFolderError(
                path, "does not exist; expected a folder with \(Self.configFile) and weights")
        }
        if manager.fileExists(atPath: file("model_index.json")) {
            throw ModelFolderError(
                path, "is a whole pipeline; use the folder of one of its models, such as \(file("unet"))")
        }
        throw ModelFolderError(path, "has no \(Self.configFile); expected a diffusers model folder")
    }

    /// The keys that diffusers' `EMAModel.save_pretrained` adds to the configuration of an averaged model.
    private static let averageSettings: Set<String> = [
        "decay", "inv_gamma", "min_decay", "optimization_step", "power", "update_after_step",
        "use_ema_warmup",
    ]

    /// A model's configuration without the settings of its average, which diffusers also ignores when it loads
    /// the model. Without `optimization_step`, which diffusers always writes, none of them is expected.
    private static func withoutAverageSettings(_ node: ConfigNode) -> ConfigNode {
        guard node["optimization_step"] != nil, let entries = node.entries else { return node }
        return ConfigNode(
            .mapping(entries.filter { !averageSettings.contains($0.key) }), at: node.location)
    }

    /// What diffusers ignores in the configuration, for a note; nil if there is nothing of the kind.
    package func ignoredSettings() throws -> String? {
        guard PipelineFolder.exists(file(Self.configFile)) else { return nil }
        let node = try ConfigNode(jsonFile: file(Self.configFile))
        guard node["optimization_step"] != nil else { return nil }
        let keys = (node.entries ?? []).map(\.key).filter(Self.averageSettings.contains)
        return
            "\(file(Self.configFile)): \(keys.joined(separator: ", ")) describe diffusers' average and are ignored"
    }

    // MARK: Whole models

    /// The U-Net of this folder, with its weights.
    ///
    /// - Throws: `ModelFolderError`, `ConfigError` or `SafetensorsError`.
    package func loadUNet() throws -> UNet2DModel {
        let config = try readUNetConfig()
        let model = try UNet2DModel(config)
        try loadWeights(into: model.store)
        return model
    }

    /// The autoencoder of this folder, with its weights.
    ///
    /// - Throws: `ModelFolderError`, `ConfigError` or `SafetensorsError`.
    package func loadAutoencoder() throws -> FirstStage.Model {
        switch try readModelConfig() {
        case .unet:
            throw ModelFolderError(path, "holds a UNet2DModel; expected an AutoencoderKL or a VQModel")
        case .autoencoderKL(let config):
            let model = try AutoencoderKL(config)
            try loadWeights(into: model.store)
            return .autoencoderKL(model)
        case .vqModel(let config):
            let model = try VQModel(config)
            try loadWeights(into: model.store)
            return .vqModel(model)
        }
    }

    /// Writes configuration and weights so that diffusers' `from_pretrained` can load the folder; creates the
    /// folder if necessary. Each file is written atomically.
    ///
    /// - Parameter values: replace the store's own values, in its layout (an average of the weights).
    package func save(
        _ config: some DiffusersConfig, _ store: ParameterStore, values: UnsafePointer<Float>? = nil
    ) throws {
        try save(config, WeightSource(store, values: values), WeightFormat())
    }

    func save(_ config: some DiffusersConfig, _ weights: WeightSource, _ format: WeightFormat) throws {
        try make()
        try config.write(to: file(Self.configFile))
        try weights.write(to: self, format)
    }

    /// Creates the folder if it does not exist.
    func make() throws(ModelFolderError) {
        do {
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        } catch {
            throw ModelFolderError(
                path, "cannot be created: \(systemReason(of: error))", code: systemCode(of: error))
        }
    }
}
