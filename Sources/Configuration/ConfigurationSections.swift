import FileFormats
import LDMModel

/// `data`: the training data.
package struct DataConfiguration: Sendable, Equatable {
    /// A folder written by `disttrain prepare`, a folder or archive of images, or `synthetic-faces`.
    package var path: String
    /// Mirror a random half of the images, chosen anew every epoch.
    package var flip = false
    /// Side of the square images in pixels; nil if the data determines it (prepared latents).
    package var size: Int?
    /// Number of images that `synthetic-faces` generates.
    package var count = 10_000

    /// The path that selects generated images.
    package static let syntheticFaces = "synthetic-faces"

    /// Whether the images are generated.
    package var isSynthetic: Bool { path == Self.syntheticFaces }

    enum Key: String, CaseIterable { case path, flip, size, count }

    init(config node: ConfigNode, path: [String]) throws(ConfigError) {
        let reader = try ConfigReader<Key>(node, path: path)
        self.path = try reader.read(required: .path)
        flip = try reader.read(.flip, default: flip)
        size = try reader.read(optional: .size)
        // null restores the default, so that --set can undo a value in the file.
        let givenCount: Int? = try reader.read(optional: .count)
        count = givenCount ?? count
        try reader.check(
            !self.path.isEmpty, .path, "found nothing, expected a folder or \(Self.syntheticFaces)")
        if let size {
            try reader.check((1...16384).contains(size), .size, "found \(size), expected 1 to 16384 pixels")
        }
        try reader.check(count >= 1, .count, "found \(count), expected 1 or more")
        try reader.check(
            isSynthetic || givenCount == nil, .count,
            "is for \(Self.syntheticFaces) alone; a folder has as many as it has")
    }

    var node: ConfigNode {
        var node = ConfigNode.mapping(["path": .string(path), "flip": .bool(flip), "size": .integer(size)])
        if isSynthetic { node["count"] = .integer(count) }
        return node
    }
}

/// `diffusion`: the forward process, the model's prediction target, and the loss weighting.
package struct DiffusionConfiguration: Sendable, Equatable {
    /// T, the number of training timesteps.
    package var timesteps = 1000
    package var schedule = BetaSchedule.squaredCosine
    package var betaStart = 0.0001
    package var betaEnd = 0.02
    package var prediction = PredictionType.epsilon
    /// γ of min-SNR weighting; nil weights all timesteps equally.
    package var minSNRGamma: Double?
    /// Whether samplers clip the predicted x₀ to [-1, 1], the range of images; by default true in pixel
    /// space.
    package var clipSample: Bool

    enum Key: String, CaseIterable {
        case timesteps, schedule, prediction
        case betaStart = "beta_start"
        case betaEnd = "beta_end"
        case minSNRGamma = "min_snr_gamma"
        case clipSample = "clip_sample"
    }

    init(config node: ConfigNode, path: [String], isLatent: Bool) throws(ConfigError) {
        let reader = try ConfigReader<Key>(node, path: path)
        timesteps = try reader.read(.timesteps, default: timesteps)
        schedule = try reader.read(.schedule, default: schedule)
        betaStart = try reader.read(.betaStart, default: betaStart)
        betaEnd = try reader.read(.betaEnd, default: betaEnd)
        prediction = try reader.read(.prediction, default: prediction)
        minSNRGamma = try reader.read(optional: .minSNRGamma)
        clipSample = try reader.read(optional: .clipSample) ?? !isLatent
        try reader.check(
            (1...1_000_000).contains(timesteps), .timesteps, "found \(timesteps), expected 1 to 1000000")
        try reader.check(
            betaStart > 0 && betaStart < 1, .betaStart,
            "found \(betaStart), expected more than 0 and less than 1")
        try reader.check(
            betaEnd >= betaStart && betaEnd < 1, .betaEnd,
            "found \(betaEnd), expected beta_start (\(betaStart)) or more and less than 1")
        if let gamma = minSNRGamma {
            try reader.check(gamma > 0, .minSNRGamma, "found \(gamma), expected more than 0")
        }
    }

    var node: ConfigNode {
        .mapping([
            "timesteps": .integer(timesteps), "schedule": .string(schedule.rawValue),
            "beta_start": .number(betaStart),
            "beta_end": .number(betaEnd), "prediction": .string(prediction.rawValue),
            "min_snr_gamma": .number(minSNRGamma), "clip_sample": .bool(clipSample),
        ])
    }
}

/// The learning-rate schedule after the warmup.
package enum LearningRateSchedule: String, ConfigChoice {
    case constant, cosine
}

/// `optimizer`: AdamW and its learning rate.
package struct OptimizerConfiguration: Sendable, Equatable {
    /// Learning rate after the warmup. It is not scaled with the batch size or the number of ranks.
    package var learningRate = 1e-4
    /// Steps over which the learning rate increases linearly from 0.
    package var warmupSteps = 0
    package var schedule = LearningRateSchedule.constant
    /// Final learning rate of the cosine schedule.
    package var minLearningRate = 0.0
    package var beta1 = 0.9
    package var beta2 = 0.999
    package var eps = 1e-8
    package var weightDecay = 0.0
    /// Limit on the norm of the whole gradient; nil disables clipping.
    package var clipNorm: Double? = 1.0

    enum Key: String, CaseIterable {
        case learningRate = "learning_rate"
        case warmupSteps = "warmup_steps"
        case schedule
        case minLearningRate = "min_learning_rate"
        case betas, eps
        case weightDecay = "weight_decay"
        case clipNorm = "clip_norm"
    }

    init(config node: ConfigNode, path: [String]) throws(ConfigError) {
        let reader = try ConfigReader<Key>(node, path: path)
        learningRate = try reader.read(.learningRate, default: learningRate)
        warmupSteps = try reader.read(.warmupSteps, default: warmupSteps)
        schedule = try reader.read(.schedule, default: schedule)
        minLearningRate = try reader.read(.minLearningRate, default: minLearningRate)
        let betas = try reader.read(.betas, default: [beta1, beta2])
        eps = try reader.read(.eps, default: eps)
        weightDecay = try reader.read(.weightDecay, default: weightDecay)
        clipNorm = try reader.read(optional: .clipNorm, default: clipNorm)
        try reader.check(
            betas.count == 2, .betas, "found \(betas.count) values, expected two, such as [0.9, 0.999]")
        for beta in betas {
            try reader.check(
                beta >= 0 && beta < 1, .betas, "found \(beta), expected 0 or more and less than 1")
        }
        (beta1, beta2) = (betas[0], betas[1])
        try reader.check(learningRate > 0, .learningRate, "found \(learningRate), expected more than 0")
        try reader.check(warmupSteps >= 0, .warmupSteps, "found \(warmupSteps), expected 0 or more")
        try reader.check(
            minLearningRate >= 0 && minLearningRate <= learningRate, .minLearningRate,
            "found \(minLearningRate), expected 0 to learning_rate (\(learningRate))")
        try reader.check(
            schedule == .cosine || minLearningRate == 0, .minLearningRate, "is for schedule: cosine alone")
        try reader.check(eps > 0, .eps, "found \(eps), expected more than 0")
        try reader.check(weightDecay >= 0, .weightDecay, "found \(weightDecay), expected 0 or more")
        if let clipNorm {
            try reader.check(
                clipNorm > 0, .clipNorm, "found \(clipNorm), expected more than 0, or null for no clipping")
        }
    }

    var node: ConfigNode {
        .mapping([
            "learning_rate": .number(learningRate), "warmup_steps": .integer(warmupSteps),
            "schedule": .string(schedule.rawValue), "min_learning_rate": .number(minLearningRate),
            "betas": .numbers([beta1, beta2]), "eps": .number(eps), "weight_decay": .number(weightDecay),
            "clip_norm": .number(clipNorm),
        ])
    }
}

/// `ema`: averages of the weights, used for sampling.
package struct EMAConfiguration: Sendable, Equatable {
    /// Decays of exponential averages, one average each; empty for none.
    package var decays = [0.9999]
    /// Whether the decay is limited to (1 + step)/(10 + step), so that the initial weights do not dominate
    /// the average of a short run.
    package var warmup = true
    /// Relative widths of power-function averages, one average each; others can be reconstructed from them
    /// after training, see `PowerProfile`. Empty for none.
    package var sigmaRel: [Double] = []
    /// Steps between snapshots of the power-function averages; 0 for none.
    package var snapshotEvery = 0

    enum Key: String, CaseIterable {
        case decays, warmup
        case sigmaRel = "sigma_rel"
        case snapshotEvery = "snapshot_every"
    }

    /// The profiles of all averages. The greatest one, the slowest average, is used for sampling.
    package var profiles: [AverageProfile] {
        decays.map { .exponential(decay: $0) } + sigmaRel.map { .power(sigmaRel: $0) }
    }

    init(config node: ConfigNode, path: [String]) throws(ConfigError) {
        let reader = try ConfigReader<Key>(node, path: path)
        decays = try reader.read(.decays, default: decays)
        warmup = try reader.read(.warmup, default: warmup)
        for decay in decays {
            try reader.check(
                decay >= 0 && decay < 1, .decays, "found \(decay), expected 0 or more and less than 1")
        }
        try reader.check(Set(decays).count == decays.count, .decays, "the same decay is given twice")
        sigmaRel = try reader.read(.sigmaRel, default: sigmaRel)
        snapshotEvery = try reader.read(.snapshotEvery, default: snapshotEvery)
        for width in sigmaRel {
            try reader.check(
                width > 0 && width < PowerProfile.sigmaLimit, .sigmaRel,
                "found \(width), expected more than 0 and less than 1/√12 (0.2886…), as 0.05 and 0.1")
        }
        try reader.check(Set(sigmaRel).count == sigmaRel.count, .sigmaRel, "the same width is given twice")
        try reader.check(snapshotEvery >= 0, .snapshotEvery, "found \(snapshotEvery), expected 0 or more")
        try reader.check(
            snapshotEvery == 0 || sigmaRel.count > 1, .snapshotEvery,
            "needs two widths in ema.sigma_rel, such as [0.05, 0.1], to make others from")
    }

    var node: ConfigNode {
        .mapping([
            "decays": .numbers(decays), "warmup": .bool(warmup), "sigma_rel": .numbers(sigmaRel),
            "snapshot_every": .integer(snapshotEvery),
        ])
    }
}
