import FileFormats
import Foundation
import LDMModel

/// `loss` of an autoencoder: the weights of its terms.
package struct AutoencoderLossConfiguration: Sendable, Equatable {
    /// Weight of the mean absolute error.
    package var l1 = 1.0
    /// Weight of the mean squared error.
    package var mse = 0.0
    /// Weight of the KL divergence of the posterior from N(0, 1).
    package var kl = 1e-6
    /// Weight of the absolute error of image gradients; sharpens edges.
    package var edge = 0.0

    enum Key: String, CaseIterable { case l1, mse, kl, edge }

    init(config node: ConfigNode, path: [String]) throws(ConfigError) {
        let reader = try ConfigReader<Key>(node, path: path)
        l1 = try reader.read(.l1, default: l1)
        mse = try reader.read(.mse, default: mse)
        kl = try reader.read(.kl, default: kl)
        edge = try reader.read(.edge, default: edge)
        for (key, weight) in [(Key.l1, l1), (.mse, mse), (.kl, kl), (.edge, edge)] {
            try reader.check(weight >= 0, key, "found \(weight), expected 0 or more")
        }
        try reader.check(l1 > 0 || mse > 0, .l1, "l1 and mse are both 0: nothing would be reconstructed")
    }

    var node: ConfigNode {
        .mapping(["l1": .number(l1), "mse": .number(mse), "kl": .number(kl), "edge": .number(edge)])
    }
}

/// The complete configuration of an autoencoder training run: `disttrain vae train --config`.
package struct AutoencoderConfiguration: Sendable, Equatable {
    /// The run's name, used for its folder.
    package var name: String
    package var seed: UInt64
    /// Folder of a model that provides the initial weights; nil for random weights.
    package var initFrom: String?
    package var data: DataConfiguration
    package var model: AutoencoderKLConfig
    package var loss: AutoencoderLossConfiguration
    package var optimizer: OptimizerConfiguration
    package var ema: EMAConfiguration
    package var train: TrainConfiguration
    package var checkpoint: CheckpointConfiguration
    package var logging: LoggingConfiguration

    enum Key: String, CaseIterable {
        case name, seed
        case initFrom = "init_from"
        case data, model, loss, optimizer, ema, train, checkpoint, logging
    }

    /// Reads a YAML file and applies `--set` overrides, each `a.b=value`.
    ///
    /// - Parameter initFrom: overrides the file's `init_from`.
    package static func load(
        path: String, overrides: [String] = [], initFrom: String? = nil
    ) throws(ConfigError) -> AutoencoderConfiguration {
        try AutoencoderConfiguration(
            yaml: ConfigurationFile.read(path), source: path, overrides: overrides, initFrom: initFrom,
            folder: (path as NSString).deletingLastPathComponent)
    }

    /// Parses YAML text; see `Configuration.init(yaml:source:overrides:folder:)`.
    package init(
        yaml: String, source: String, overrides: [String] = [], initFrom: String? = nil,
        folder: String = ""
    ) throws(ConfigError) {
        let root = try ConfigurationFile.tree(
            yaml, source: source, overrides: overrides, initFrom: initFrom)
        let reader = try ConfigReader<Key>(root)
        name = try ConfigurationFile.name(reader, .name)
        seed = try ConfigurationFile.seed(reader, .seed)
        self.initFrom = try ConfigurationFile.initFrom(reader, .initFrom)
        guard let dataNode = reader.child(.data) else { throw reader.missing(.data) }
        data = try DataConfiguration(config: dataNode, path: reader.path(of: .data))
        let resolvedModel = try ConfigurationFile.model(
            reader, .model, folder: folder, initFrom: self.initFrom
        ) {
            guard case .autoencoderKL(let model) = try PipelineFolder.locateAutoencoder($0).readModelConfig()
            else { throw ModelFolderError($0, "holds another model, expected an AutoencoderKL") }
            return model.node
        }
        model = try AutoencoderKLConfig(config: resolvedModel, path: reader.path(of: .model))
        loss = try AutoencoderLossConfiguration(config: reader.section(.loss), path: reader.path(of: .loss))
        optimizer = try OptimizerConfiguration(
            config: reader.section(.optimizer), path: reader.path(of: .optimizer))
        ema = try EMAConfiguration(config: reader.section(.ema), path: reader.path(of: .ema))
        guard let trainNode = reader.child(.train) else { throw reader.missing(.train) }
        train = try TrainConfiguration(config: trainNode, path: reader.path(of: .train))
        checkpoint = try CheckpointConfiguration(
            config: reader.section(.checkpoint), path: reader.path(of: .checkpoint))
        logging = try LoggingConfiguration(config: reader.section(.logging), path: reader.path(of: .logging))
        try checkAcrossSections(dataNode: dataNode, modelNode: resolvedModel, root: root)
    }

    /// Validates constraints across sections, and sets the image size from the model's `sample_size`.
    private mutating func checkAcrossSections(
        dataNode: ConfigNode, modelNode: ConfigNode, root: ConfigNode
    ) throws(ConfigError) {
        if model.inChannels != model.outChannels {
            throw ConfigError(
                .invalidValue, at: ["model", "out_channels"],
                "found \(model.outChannels), expected in_channels (\(model.inChannels)):"
                    + " it is trained to give back its input",
                location: modelNode["out_channels"]?.location ?? modelNode.location)
        }
        if optimizer.warmupSteps > train.steps {
            throw ConfigError(
                .invalidValue, at: ["optimizer", "warmup_steps"],
                "found \(optimizer.warmupSteps), more than train.steps (\(train.steps))",
                location: root["optimizer"]?["warmup_steps"]?.location)
        }
        if data.size == nil, modelNode["sample_size"] != nil,
            model.sampleSize.height == model.sampleSize.width
        {
            data.size = model.sampleSize.height
        }
        let location = dataNode["size"]?.location ?? dataNode.location
        guard let size = data.size else {
            throw ConfigError(
                .missingKey, at: ["data", "size"],
                "must be given: the side in pixels of the images to train on",
                location: location)
        }
        if size % model.downsamplingFactor != 0 {
            throw ConfigError(
                .invalidValue, at: ["data", "size"],
                "found \(size), expected a multiple of \(model.downsamplingFactor), the model's downsampling",
                location: location)
        }
        // In diffusers, sample_size is the training size; if it is absent, use the size of the data.
        if modelNode["sample_size"] == nil { model.sampleSize = SpatialSize(size) }
    }
}

extension AutoencoderConfiguration {
    /// The complete configuration as a tree, with defaults and overrides applied.
    package var node: ConfigNode {
        var node = ConfigNode.mapping([
            "name": .string(name), "seed": .integer(Int(clamping: seed)), "data": data.node,
            "model": model.node, "loss": loss.node, "optimizer": optimizer.node, "ema": ema.node,
            "train": train.node, "checkpoint": checkpoint.node, "logging": logging.node,
        ])
        if let initFrom { node["init_from"] = .string(initFrom) }
        return node
    }

    /// The complete configuration as YAML; parsing it yields the same configuration.
    package func resolvedYAML() -> String { YAMLNode.text(node) }

    /// A hash of the resolved configuration, 16 hexadecimal digits.
    package var stableHash: String { ConfigurationFile.hash(node) }
}
