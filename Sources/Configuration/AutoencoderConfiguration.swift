import FileFormats
import LDMModel

/// `loss` of an autoencoder: the weights of its terms.
package struct AutoencoderLossConfiguration: ConfigSection {
    package var l1 = 1.0
    package var mse = 0.0
    package var kl = 1e-6
    package var edge = 0.0

    package init() {}

    package static var keys: [ConfigKey<AutoencoderLossConfiguration>] {
        [
            .init("l1", \.l1, .atLeast(0), .otherLoss, "Weight of the mean absolute error."),
            .init("mse", \.mse, .atLeast(0), .otherLoss, "Weight of the mean squared error."),
            .init(
                "kl", \.kl, .atLeast(0), .otherLoss,
                "Weight of the KL divergence of the posterior from N(0, 1)."),
            .init(
                "edge", \.edge, .atLeast(0), .otherLoss,
                "Weight of the absolute error of image gradients; sharpens edges."),
        ]
    }

    package func check() throws(ConfigError) {
        try require(l1 > 0 || mse > 0, "l1", "l1 and mse are both 0: nothing would be reconstructed")
    }
}

/// The complete configuration of an autoencoder training run: `disttrain vae train --config`.
package struct AutoencoderConfiguration: TrainingConfiguration {
    package var name = "my-autoencoder"
    package var seed: UInt64 = 0
    package var initFrom: String?
    package var data = DataConfiguration()
    package var model = AutoencoderKLConfig()
    package var loss = AutoencoderLossConfiguration()
    package var optimizer = OptimizerConfiguration()
    package var ema = EMAConfiguration()
    package var train = TrainConfiguration()
    package var checkpoint = CheckpointConfiguration()
    package var logging = LoggingConfiguration()

    package init() {}

    /// The order is part of the configuration's hash.
    package static var keys: [ConfigKey<AutoencoderConfiguration>] {
        [
            .runName, .seed,
            .init(section: "data", \.data, "The training images.", isRequired: true),
            .init(
                section: "model", \.model,
                "The autoencoder, with the keys of diffusers' AutoencoderKL. config: FILE.json reads them from a file,"
                    + " and keys next to it take precedence. Without this section, the model is that of init_from.",
                isRequired: true),
            .init(section: "loss", \.loss, "The weights of the loss terms."),
            .optimizer,
            .init(section: "ema", \.ema, "Averages of the weights, used for the saved model."),
            .train, .checkpoint,
            .logging,
            .initFrom,
        ]
    }

    package static func modelKeys(of folder: ModelFolder) throws -> ConfigNode {
        try folder.readAutoencoderKLConfig().node
    }

    /// The images have the model's `sample_size`, and the other way round, if only one of the two is given.
    package mutating func complete(modelKeys: Set<String>) {
        if modelKeys.contains("sample_size") {
            if data.size == nil, model.sampleSize.height == model.sampleSize.width {
                data.size = model.sampleSize.height
            }
        } else if let size = data.size {
            model.sampleSize = SpatialSize(size)
        }
    }

    package func check() throws(ConfigError) {
        try checkTraining("it is trained to reconstruct its input", model.inChannels, model.outChannels)
        try checkImageChannels(model.inChannels)
        guard let size = data.size else {
            throw ConfigError(
                .missingKey, at: ["data", "size"],
                "must be given: the side in pixels of the images to train on")
        }
        try checkImageSize(size, model.downsamplingFactor)
    }
}
