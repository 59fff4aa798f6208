import FileFormats
import LDMModel

/// Why a changed value would harm a run that continues from a checkpoint.
extension ChangeEffect {
    package static let otherData = ChangeEffect.harmful("the model was trained on different data")
    static let otherNoise = ChangeEffect.harmful("the model was trained with different noise")
    static let otherLoss = ChangeEffect.harmful("the model was trained with a different loss")
    static let otherAverages = ChangeEffect.harmful("averages in the checkpoint would be dropped")
}

/// `data`: the training data.
package struct DataConfiguration: ConfigSection {
    package var path = "data/photos"
    package var flip = false
    package var size: Int?
    /// nil for the channels of prepared data, or 3.
    package var channels: Int?
    /// nil for a folder, which determines the number of its images.
    package var count: Int?

    /// The path that selects generated images.
    package static let syntheticFaces = "synthetic-faces"

    /// Whether the images are generated.
    package var isSynthetic: Bool { path == Self.syntheticFaces }
    /// Number of images that `synthetic-faces` generates.
    package var syntheticCount: Int { count ?? 10_000 }

    package init() {}

    package static var keys: [ConfigKey<DataConfiguration>] {
        [
            // The fingerprint identifies the contents.
            .init(
                "path", \.path, .nonEmpty("a folder or \(syntheticFaces)"), .harmless,
                "A folder written by disttrain prepare, a folder or archive of images, or synthetic-faces.",
                isRequired: true),
            .init("flip", \.flip, .otherData, "Mirror a random half of the images, chosen anew every epoch."),
            .init(
                "size", \.size, .within(1...16384), .otherData, "Side of the square images in pixels.",
                defaultText: "that of prepared data, or model.sample_size"),
            .init(
                "channels", \.channels, .where("3, or 1 for grayscale") { $0 == 1 || $0 == 3 }, .otherData,
                "Channels of the images: 3, or 1 for their luma (ITU-R BT.601).",
                defaultText: "those of prepared data, or 3", omitted: { $0.channels == nil }),
            .init(
                "count", \.count, .atLeast(1), .otherData, "Number of images that synthetic-faces generates.",
                defaultText: "10000 for synthetic-faces", omitted: { $0.count == nil }),
        ]
    }

    package mutating func end(_ node: ConfigNode) {
        if isSynthetic { count = syntheticCount }
    }

    package func check() throws(ConfigError) {
        try require(
            isSynthetic || count == nil, "count",
            "only applies to \(Self.syntheticFaces); a folder determines its own number of images")
    }
}

/// `first_stage`: the autoencoder of a latent diffusion model.
package struct FirstStageConfiguration: ConfigSection {
    package var path = "models/vae"

    package init() {}

    package static var keys: [ConfigKey<FirstStageConfiguration>] {
        [
            .init(
                "path", \.path, .nonEmpty("the folder of an autoencoder"), .harmless,
                "Folder of an autoencoder in diffusers' layout.", isRequired: true)
        ]
    }
}

/// `diffusion`: the forward process, the model's prediction target, and the loss weighting.
package struct DiffusionConfiguration: ConfigSection {
    /// T, the number of training timesteps.
    package var timesteps = 1000
    package var schedule = BetaSchedule.squaredCosine
    package var betaStart = 0.0001
    package var betaEnd = 0.02
    package var prediction = PredictionType.epsilon
    package var minSNRGamma: Double?
    package var clipSample = true
    /// Probability with which a label is replaced by the null class.
    package var labelDropout = 0.0
    package var rescaleBetasZeroSNR = false

    package init() {}

    /// - Parameter isLatent: whether the model denoises latents, whose range is not that of images.
    init(isLatent: Bool) { clipSample = !isLatent }

    package static var keys: [ConfigKey<DiffusionConfiguration>] {
        [
            .init(
                "timesteps", \.timesteps, .within(1...1_000_000), .otherNoise, "T, the number of timesteps."),
            .init(
                "schedule", \.schedule, .otherNoise,
                "How β increases over the timesteps; squaredcos_cap_v2 is the cosine schedule, sigmoid that of GeoDiff."
            ),
            .init("beta_start", \.betaStart, .above(0, below: 1), .otherNoise, "β of the first timestep."),
            .init("beta_end", \.betaEnd, .above(0, below: 1), .otherNoise, "β of the last timestep."),
            .init(
                "prediction", \.prediction, .otherNoise,
                "What the model predicts: the noise, the velocity, or the clean sample."),
            .init(
                "min_snr_gamma", \.minSNRGamma, .above(0), .otherLoss,
                "γ of min-SNR loss weighting, in the form for the prediction; null weights all timesteps equally."
            ),
            // Only samplers clip.
            .init(
                "clip_sample", \.clipSample, .harmless,
                "Whether samplers clip the predicted x₀ to [-1, 1], the range of images.",
                defaultText: "true in pixel space, false for latents"),
            .init(
                "label_dropout", \.labelDropout, .from(0, below: 1),
                .harmful("the null class was trained on a different share of the samples"),
                "Share of samples that a class-conditional model sees without their class, as classifier-free guidance"
                    + " requires; 0.1 is usual.", omitted: { $0.labelDropout == 0 }),
            .init(
                "rescale_betas_zero_snr", \.rescaleBetasZeroSNR, .otherNoise,
                "Rescale β so that the last timestep is pure noise (Lin et al. 2023); for v_prediction and sample.",
                omitted: { !$0.rescaleBetasZeroSNR }),
        ]
    }

    package func check() throws(ConfigError) {
        try require(
            betaEnd >= betaStart, "beta_end",
            "found \(betaEnd), expected beta_start (\(betaStart)) or more and less than 1")
        guard rescaleBetasZeroSNR else { return }
        try require(
            prediction != .epsilon, "rescale_betas_zero_snr",
            "found true with prediction epsilon, which cannot predict x0 from pure noise;"
                + " choose v_prediction or sample")
        try require(timesteps > 1, "rescale_betas_zero_snr", "needs two timesteps or more")
    }
}

/// The learning-rate schedule after the warmup.
package enum LearningRateSchedule: String, ConfigChoice {
    case constant, cosine
}

/// `optimizer`: AdamW and its learning rate.
package struct OptimizerConfiguration: ConfigSection {
    package var learningRate = 1e-4
    package var warmupSteps = 0
    package var schedule = LearningRateSchedule.constant
    package var minLearningRate = 0.0
    package var betas = [0.9, 0.999]
    package var eps = 1e-8
    package var weightDecay = 0.0
    /// nil disables clipping.
    package var clipNorm: Double? = 1.0

    package init() {}

    package static var keys: [ConfigKey<OptimizerConfiguration>] {
        [
            // The learning rate and similar keys take effect anew at each step.
            .init(
                "learning_rate", \.learningRate, .above(0), .harmless,
                "Learning rate after the warmup; it does not depend on the number of ranks."),
            .init(
                "warmup_steps", \.warmupSteps, .atLeast(0), .harmless,
                "Steps over which the learning rate increases linearly from 0."),
            .init("schedule", \.schedule, .harmless, "The learning rate after the warmup."),
            .init(
                "min_learning_rate", \.minLearningRate, .atLeast(0), .harmless,
                "Learning rate at the end of schedule: cosine."),
            .init(
                "betas", \.betas, .from(0, below: 1),
                .harmful("the moments were accumulated with the old ones"),
                "Decays of AdamW's first and second moments."),
            .init("eps", \.eps, .above(0), .harmless, "Added to the root of AdamW's second moment."),
            .init("weight_decay", \.weightDecay, .atLeast(0), .harmless, "Decoupled weight decay."),
            .init(
                "clip_norm", \.clipNorm, .where("more than 0, or null for no clipping") { $0 > 0 }, .harmless,
                "Limit on the L2 norm of the whole gradient."),
        ]
    }

    package func check() throws(ConfigError) {
        try require(
            betas.count == 2, "betas", "found \(betas.count) values, expected two, such as [0.9, 0.999]")
        try require(
            minLearningRate <= learningRate, "min_learning_rate",
            "found \(minLearningRate), expected 0 to learning_rate (\(learningRate))")
        try require(
            schedule == .cosine || minLearningRate == 0, "min_learning_rate",
            "only applies to schedule: cosine")
    }
}

/// `ema`: averages of the weights, used for sampling.
package struct EMAConfiguration: ConfigSection {
    package var decays = [0.9999]
    package var warmup = true
    package var sigmaRel: [Double] = []
    package var snapshotEvery = 0

    package init() {}

    package static var keys: [ConfigKey<EMAConfiguration>] {
        [
            .init(
                "decays", \.decays, .from(0, below: 1), .otherAverages,
                "Decays of exponential averages, one average each; [] for none."),
            .init(
                "warmup", \.warmup, .harmful("the averages were computed with the old one"),
                "Limit the decay to (1 + step)/(10 + step), so that the initial weights do not dominate a short run."
            ),
            .init(
                "sigma_rel", \.sigmaRel,
                .where("more than 0 and less than 1/√12 (0.2886…), as 0.05 and 0.1") {
                    $0 > 0 && $0 < PowerProfile.sigmaLimit
                }, .otherAverages,
                "Relative widths of power-function averages, from which others can be reconstructed (docs/ema.md)."
            ),
            .init(
                "snapshot_every", \.snapshotEvery, .atLeast(0), .harmless,
                "Steps between snapshots of the power-function averages; 0 for none."),
        ]
    }

    package func check() throws(ConfigError) {
        try require(Set(decays).count == decays.count, "decays", "the same decay is given twice")
        try require(Set(sigmaRel).count == sigmaRel.count, "sigma_rel", "the same width is given twice")
        try require(
            snapshotEvery == 0 || sigmaRel.count > 1, "snapshot_every",
            "needs at least two widths in ema.sigma_rel, such as [0.05, 0.1]")
    }

    /// The profiles of all averages. The greatest one, the slowest average, is used for sampling.
    package var profiles: [AverageProfile] {
        decays.map { .exponential(decay: $0) } + sigmaRel.map { .power(sigmaRel: $0) }
    }
}
