import FileFormats
import Foundation
import LDMModel

/// The complete configuration of a diffusion training run, with defaults applied: `disttrain train --config`.
///
///     let configuration = try Configuration.load(path: "configs/tiny.yaml", overrides: ["train.steps=100"])
///
/// Each invalid entry throws a `ConfigError` with a one-line message that has file, line and key.
package struct Configuration: Sendable, Equatable {
    /// The run's name, used for its folder.
    package var name: String
    package var seed: UInt64
    /// Folder of a model that provides the initial weights; nil for random weights.
    package var initFrom: String?
    package var data: DataConfiguration
    /// Folder of the autoencoder (diffusers layout); nil for training in pixel space.
    package var firstStagePath: String?
    package var model: UNet2DConfig
    package var diffusion: DiffusionConfiguration
    package var optimizer: OptimizerConfiguration
    package var ema: EMAConfiguration
    package var train: TrainConfiguration
    package var checkpoint: CheckpointConfiguration
    package var sampling: SamplingConfiguration
    package var evaluation: EvaluationConfiguration
    package var logging: LoggingConfiguration

    enum Key: String, CaseIterable {
        case name, seed
        case initFrom = "init_from"
        case data
        case firstStage = "first_stage"
        case model, diffusion, optimizer, ema, train, checkpoint, sampling, evaluation, logging
    }

    private enum FirstStageKey: String, CaseIterable { case path }

    /// Reads a YAML file and applies `--set` overrides, each `a.b=value`.
    ///
    /// - Parameter initFrom: overrides the file's `init_from`.
    package static func load(
        path: String, overrides: [String] = [], initFrom: String? = nil
    ) throws(ConfigError) -> Configuration {
        try Configuration(
            yaml: ConfigurationFile.read(path), source: path, overrides: overrides, initFrom: initFrom,
            folder: (path as NSString).deletingLastPathComponent)
    }

    /// Parses YAML text.
    ///
    /// - Parameters:
    ///   - source: the name of the text in messages.
    ///   - folder: the base of relative paths in `model: {config: FILE.json}`.
    package init(
        yaml: String, source: String, overrides: [String] = [], initFrom: String? = nil,
        folder: String = ""
    ) throws(ConfigError) {
        try self.init(
            config: ConfigurationFile.tree(
                yaml, source: source, overrides: overrides, initFrom: initFrom), folder: folder)
    }

    private init(config root: ConfigNode, folder: String) throws(ConfigError) {
        let reader = try ConfigReader<Key>(root)
        name = try ConfigurationFile.name(reader, .name)
        seed = try ConfigurationFile.seed(reader, .seed)
        initFrom = try ConfigurationFile.initFrom(reader, .initFrom)
        if let node = reader.child(.firstStage), node.value != .null {
            let section = try ConfigReader<FirstStageKey>(node, path: reader.path(of: .firstStage))
            let path: String = try section.read(required: .path)
            try section.check(!path.isEmpty, .path, "found nothing, expected the folder of an autoencoder")
            firstStagePath = path
        }
        guard let dataNode = reader.child(.data) else { throw reader.missing(.data) }
        data = try DataConfiguration(config: dataNode, path: reader.path(of: .data))
        let resolvedModel = try ConfigurationFile.model(
            reader, .model, folder: folder, initFrom: initFrom
        ) {
            guard case .unet(let model) = try PipelineFolder.locateUNet($0).readModelConfig() else {
                throw ModelFolderError($0, "holds an autoencoder, expected a UNet2DModel")
            }
            return model.node
        }
        model = try UNet2DConfig(config: resolvedModel, path: reader.path(of: .model))
        diffusion = try DiffusionConfiguration(
            config: reader.section(.diffusion), path: reader.path(of: .diffusion),
            isLatent: firstStagePath != nil)
        optimizer = try OptimizerConfiguration(
            config: reader.section(.optimizer), path: reader.path(of: .optimizer))
        ema = try EMAConfiguration(config: reader.section(.ema), path: reader.path(of: .ema))
        guard let trainNode = reader.child(.train) else { throw reader.missing(.train) }
        train = try TrainConfiguration(config: trainNode, path: reader.path(of: .train))
        checkpoint = try CheckpointConfiguration(
            config: reader.section(.checkpoint), path: reader.path(of: .checkpoint))
        sampling = try SamplingConfiguration(
            config: reader.section(.sampling), path: reader.path(of: .sampling),
            timesteps: diffusion.timesteps)
        evaluation = try EvaluationConfiguration(
            config: reader.section(.evaluation), path: reader.path(of: .evaluation),
            sampling: sampling.steps, timesteps: diffusion.timesteps)
        logging = try LoggingConfiguration(config: reader.section(.logging), path: reader.path(of: .logging))
        try checkAcrossSections(dataNode: dataNode, modelNode: resolvedModel, root: root)
    }

    /// Validates constraints across sections, and sets the image size in pixel space.
    private mutating func checkAcrossSections(
        dataNode: ConfigNode, modelNode: ConfigNode, root: ConfigNode
    ) throws(ConfigError) {
        if model.inChannels != model.outChannels {
            throw ConfigError(
                .invalidValue, at: ["model", "out_channels"],
                "found \(model.outChannels), expected in_channels (\(model.inChannels)):"
                    + " the model predicts what it is given",
                location: modelNode["out_channels"]?.location ?? modelNode.location)
        }
        if optimizer.warmupSteps > train.steps {
            throw ConfigError(
                .invalidValue, at: ["optimizer", "warmup_steps"],
                "found \(optimizer.warmupSteps), more than train.steps (\(train.steps))",
                location: root["optimizer"]?["warmup_steps"]?.location)
        }
        guard firstStagePath == nil else { return }
        if data.isSynthetic, data.size == nil, let size = model.sampleSize, size.height == size.width {
            data.size = size.height
        }
        let location = dataNode["size"]?.location ?? dataNode.location
        if data.isSynthetic, data.size == nil {
            throw ConfigError(
                .missingKey, at: ["data", "size"],
                "must be given for \(DataConfiguration.syntheticFaces), or model.sample_size",
                location: location)
        }
        guard let size = data.size else { return }
        if let expected = model.sampleSize, expected != SpatialSize(size) {
            throw ConfigError(
                .invalidValue, at: ["data", "size"],
                "found \(size), expected model.sample_size (\(expected.height)) in pixel space",
                location: location)
        }
        if size % model.downsamplingFactor != 0 {
            throw ConfigError(
                .invalidValue, at: ["data", "size"],
                "found \(size), expected a multiple of \(model.downsamplingFactor),"
                    + " which the model's levels divide it by",
                location: location)
        }
    }
}

extension Configuration {
    /// The complete configuration as a tree, with defaults and overrides applied.
    package var node: ConfigNode {
        var node = ConfigNode.mapping([
            "name": .string(name), "seed": .integer(Int(clamping: seed)),
        ])
        if let initFrom { node["init_from"] = .string(initFrom) }
        node["data"] = data.node
        if let path = firstStagePath { node["first_stage"] = .mapping(["path": .string(path)]) }
        node["model"] = model.node
        node["diffusion"] = diffusion.node
        node["optimizer"] = optimizer.node
        node["ema"] = ema.node
        node["train"] = train.node
        node["checkpoint"] = checkpoint.node
        node["sampling"] = sampling.node
        // Omitted if unused, so that configurations from before this section existed keep their hash.
        if evaluation.every > 0 { node["evaluation"] = evaluation.node }
        node["logging"] = logging.node
        return node
    }

    /// The complete configuration as YAML; parsing it yields the same configuration.
    package func resolvedYAML() -> String { YAMLNode.text(node) }

    /// A hash of the resolved configuration, 16 hexadecimal digits.
    package var stableHash: String { ConfigurationFile.hash(node) }

    /// The scheduler configuration for the run's model folder.
    package func schedulerConfig(spacing: TimestepSpacing? = nil, sampler: SamplerKind? = nil)
        -> SchedulerConfig
    {
        var config = SchedulerConfig()
        config.schedulerClass = (sampler ?? sampling.sampler) == .ddim ? .ddim : .ddpm
        config.numTrainTimesteps = diffusion.timesteps
        config.betaSchedule = diffusion.schedule
        config.betaStart = diffusion.betaStart
        config.betaEnd = diffusion.betaEnd
        config.predictionType = diffusion.prediction
        config.clipSample = diffusion.clipSample
        config.timestepSpacing = spacing ?? sampling.spacing
        return config
    }

    /// The noise schedule of training and sampling.
    package func noiseSchedule() throws(ConfigError) -> NoiseSchedule { try NoiseSchedule(schedulerConfig()) }

    /// The sampler of the `sampling` section.
    package func makeSampler() throws(ConfigError) -> any DiffusionSampler {
        let schedule = try noiseSchedule()
        switch sampling.sampler {
        case .ddim: return try DDIMSampler(schedule: schedule, steps: sampling.steps, eta: sampling.eta)
        case .ddpm: return try DDPMSampler(schedule: schedule, steps: sampling.steps)
        }
    }
}
