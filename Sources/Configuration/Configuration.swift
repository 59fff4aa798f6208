import FileFormats
import Foundation
import LDMModel

/// The complete configuration of a diffusion training run, with defaults applied: `disttrain train --config`.
///
///     let configuration = try Configuration.load(path: "configs/tiny.yaml", overrides: ["train.steps=100"])
package struct Configuration: TrainingConfiguration {
    package var name = "my-run"
    package var seed: UInt64 = 0
    package var initFrom: String?
    package var data = DataConfiguration()
    /// nil for training in pixel space.
    package var firstStage: FirstStageConfiguration?
    package var model = UNet2DConfig()
    package var diffusion = DiffusionConfiguration()
    package var optimizer = OptimizerConfiguration()
    package var ema = EMAConfiguration()
    package var train = TrainConfiguration()
    package var checkpoint = CheckpointConfiguration()
    package var sampling = SamplingConfiguration()
    package var evaluation = EvaluationConfiguration()
    package var logging = LoggingConfiguration()

    package init() {}

    /// The order is part of the configuration's hash.
    package static var keys: [ConfigKey<Configuration>] {
        [
            .runName, .seed, .initFrom,
            .init(section: "data", \.data, "The training data.", isRequired: true),
            .init(section: "first_stage", \.firstStage, "The autoencoder; null trains in pixel space."),
            .init(
                section: "model", \.model,
                "The U-Net, with the keys of diffusers' UNet2DModel. config: FILE.json reads them from a file, and keys"
                    + " next to it take precedence. Without this section, the model is that of init_from.",
                isRequired: true),
            .init(
                section: "diffusion", \.diffusion,
                "The forward process, the prediction target, and the loss.",
                defaults: { DiffusionConfiguration(isLatent: $0.firstStage != nil) }),
            .optimizer,
            .init(section: "ema", \.ema, "Averages of the weights, used for sampling."),
            .train, .checkpoint,
            .init(
                section: "sampling", \.sampling,
                "The grids made during training, and the defaults of disttrain sample.",
                defaults: {
                    SamplingConfiguration(
                        timesteps: $0.diffusion.timesteps, endsInNoise: $0.diffusion.rescaleBetasZeroSNR)
                }),
            .init(
                section: "evaluation", \.evaluation,
                "Evaluations of samples during training, as by disttrain evaluate.",
                defaults: { EvaluationConfiguration(steps: $0.sampling.steps) },
                omitted: { $0.evaluation.every == 0 }),
            .logging,
        ]
    }

    package static func modelKeys(of folder: ModelFolder) throws -> ConfigNode {
        try folder.readUNetConfig().node
    }

    /// Sets what follows from other sections: in pixel space, the image size is that of the model.
    package mutating func complete(modelKeys: Set<String>) {
        if firstStage == nil, data.isSynthetic, data.size == nil, let size = model.sampleSize,
            size.height == size.width
        {
            data.size = size.height
        }
    }

    package func check() throws(ConfigError) {
        try checkTraining("the prediction has the channels of the input", model.inChannels, model.outChannels)
        if diffusion.labelDropout > 0, model.numClassEmbeds == nil {
            throw ConfigError(
                .invalidValue, at: ["diffusion", "label_dropout"],
                "only applies to a class-conditional model with model.num_class_embeds: the number of classes plus 1"
            )
        }
        try checkSampler(sampling.steps, of: "sampling")
        try checkSampler(evaluation.steps, of: "evaluation")
        guard firstStage == nil else { return }
        try checkImageChannels(model.inChannels)
        guard let size = data.size else {
            if !data.isSynthetic { return }
            throw ConfigError(
                .missingKey, at: ["data", "size"],
                "must be given for \(DataConfiguration.syntheticFaces), or model.sample_size")
        }
        if let expected = model.sampleSize, expected != SpatialSize(size) {
            throw ConfigError(
                .invalidValue, at: ["data", "size"],
                "found \(size), expected model.sample_size (\(expected.height)) in pixel space")
        }
        try checkImageSize(size, model.downsamplingFactor)
    }
}

extension Configuration {
    /// Checks the sampler before training, rather than when the first samples are due.
    private func checkSampler(_ steps: Int, of section: String) throws(ConfigError) {
        guard steps <= diffusion.timesteps else {
            throw ConfigError(
                .invalidValue, at: [section, "steps"],
                "found \(steps), expected 1 to diffusion.timesteps (\(diffusion.timesteps))")
        }
        do throws(ConfigError) {
            _ = try schedulerConfig().sampler(steps: steps, eta: sampling.eta)
        } catch {
            guard error.path != ["steps"] else {
                throw ConfigError(error.kind, at: [section, "steps"], error.detail)
            }
            throw ConfigError(
                error.kind, at: ["sampling", "sampler"], "\(sampling.sampler.rawValue): \(error.message)")
        }
    }

    /// Folder of the autoencoder (diffusers layout); nil for training in pixel space.
    package var firstStagePath: String? { firstStage?.path }

    /// The scheduler configuration for the run's model folder.
    package func schedulerConfig() -> SchedulerConfig {
        var config = SchedulerConfig(sampling.sampler.schedulerClass).with(sampling.sampler)
        config.useKarrasSigmas = sampling.karras
        config.numTrainTimesteps = diffusion.timesteps
        config.betaSchedule = diffusion.schedule
        config.betaStart = diffusion.betaStart
        config.betaEnd = diffusion.betaEnd
        config.predictionType = diffusion.prediction
        config.clipSample = diffusion.clipSample
        config.timestepSpacing = sampling.spacing
        config.rescaleBetasZeroSNR = diffusion.rescaleBetasZeroSNR
        return config.withBetasWrittenOut
    }

    /// The noise schedule of training and sampling.
    package func noiseSchedule() throws(ConfigError) -> NoiseSchedule { try NoiseSchedule(schedulerConfig()) }
}
