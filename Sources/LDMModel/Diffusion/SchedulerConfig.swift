import FileFormats

/// How β increases over the training timesteps.
package enum BetaSchedule: String, ConfigChoice {
    case linear
    /// Linear in √β, as in latent diffusion models.
    case scaledLinear = "scaled_linear"
    /// The cosine schedule of Nichol and Dhariwal, with s = 0.008 and β at most 0.999.
    case squaredCosine = "squaredcos_cap_v2"
}

/// What the model predicts.
package enum PredictionType: String, ConfigChoice {
    /// The noise ε.
    case epsilon
    /// The velocity v = √ᾱ ε - √(1-ᾱ) x₀ (Salimans and Ho 2022).
    case velocity = "v_prediction"
    /// The clean sample x₀.
    case sample
}

/// Which training timesteps a sampler visits (Lin et al. 2023, Table 2).
package enum TimestepSpacing: String, ConfigChoice {
    case leading, trailing, linspace
}

/// The variance of the noise that ancestral sampling adds.
package enum VarianceType: String, ConfigChoice {
    /// The posterior variance β̃.
    case fixedSmall = "fixed_small"
    /// β̃ as well, computed through its logarithm.
    case fixedSmallLog = "fixed_small_log"
    /// β itself.
    case fixedLarge = "fixed_large"
}

/// The diffusers scheduler classes that can be read and written.
package enum SchedulerClass: String, ConfigChoice {
    case ddim = "DDIMScheduler"
    case ddpm = "DDPMScheduler"
}

/// The configuration of diffusers' `DDIMScheduler` and `DDPMScheduler` (`scheduler_config.json`).
///
/// Source: diffusers 0.42, schedulers/scheduling_ddim.py and scheduling_ddpm.py. A key that exists only in
/// the other of the two classes is accepted, and takes effect if the other sampler is used.
package struct SchedulerConfig: DiffusersConfig {
    package var schedulerClass = SchedulerClass.ddim
    /// T, the number of training timesteps.
    package var numTrainTimesteps = 1000
    package var betaStart = 0.0001
    package var betaEnd = 0.02
    package var betaSchedule = BetaSchedule.linear
    /// β of each timestep, instead of a schedule.
    package var trainedBetas: [Double]?
    /// Whether the predicted x₀ is clipped to `±clipSampleRange`.
    package var clipSample = true
    package var clipSampleRange = 1.0
    /// Whether ᾱ before the first timestep is 1 (otherwise that of timestep 0). DDIM only.
    package var setAlphaToOne = true
    /// Added to the timesteps of leading spacing.
    package var stepsOffset = 0
    package var predictionType = PredictionType.epsilon
    package var timestepSpacing = TimestepSpacing.leading
    /// Rescales β so that the last timestep is pure noise (Lin et al. 2023, Algorithm 1).
    package var rescaleBetasZeroSNR = false
    /// DDPM only.
    package var varianceType = VarianceType.fixedSmall

    package init() {}

    enum Key: String, CaseIterable {
        case betaEnd = "beta_end"
        case betaSchedule = "beta_schedule"
        case betaStart = "beta_start"
        case clipSample = "clip_sample"
        case clipSampleRange = "clip_sample_range"
        case dynamicThresholdingRatio = "dynamic_thresholding_ratio"
        case numTrainTimesteps = "num_train_timesteps"
        case predictionType = "prediction_type"
        case rescaleBetasZeroSNR = "rescale_betas_zero_snr"
        case sampleMaxValue = "sample_max_value"
        case setAlphaToOne = "set_alpha_to_one"
        case stepsOffset = "steps_offset"
        case thresholding
        case timestepSpacing = "timestep_spacing"
        case trainedBetas = "trained_betas"
        case varianceType = "variance_type"
    }

    /// Keys without effect on these two classes: obsolete keys of early files, and keys of diffusers' other
    /// schedulers, which it retains if one scheduler is created from another's configuration and saved.
    private static let keysWithoutEffect: Set<String> = [
        "tensor_format", "timestep_values",
        "algorithm_type", "disable_corrector", "euler_at_final", "final_sigmas_type", "flow_shift",
        "interpolation_type", "lambda_min_clipped", "lower_order_final", "predict_x0", "rho",
        "shift_terminal",
        "sigma_data", "sigma_max", "sigma_min", "sigma_schedule", "skip_prk_steps", "solver_order",
        "solver_p",
        "solver_type", "time_shift_type", "timestep_type", "use_beta_sigmas", "use_dynamic_shifting",
        "use_exponential_sigmas", "use_flow_sigmas", "use_karras_sigmas", "use_lu_lambdas",
    ]

    package init(config node: ConfigNode, path: [String] = []) throws(ConfigError) {
        try Self.checkClassName(node, path: path, expected: SchedulerClass.allCases.map(\.rawValue))
        let reader = try ConfigReader<Key>(
            node, path: path, ignoringUnderscored: true, ignoring: Self.keysWithoutEffect)
        if let name = node["_class_name"] {
            schedulerClass = try SchedulerClass(config: name, path: path + ["_class_name"])
        }
        numTrainTimesteps = try reader.read(.numTrainTimesteps, default: numTrainTimesteps)
        betaStart = try reader.read(.betaStart, default: betaStart)
        betaEnd = try reader.read(.betaEnd, default: betaEnd)
        betaSchedule = try reader.read(.betaSchedule, default: betaSchedule)
        trainedBetas = try reader.read(optional: .trainedBetas)
        clipSample = try reader.read(.clipSample, default: clipSample)
        clipSampleRange = try reader.read(.clipSampleRange, default: clipSampleRange)
        setAlphaToOne = try reader.read(.setAlphaToOne, default: setAlphaToOne)
        stepsOffset = try reader.read(.stepsOffset, default: stepsOffset)
        predictionType = try reader.read(.predictionType, default: predictionType)
        timestepSpacing = try reader.read(.timestepSpacing, default: timestepSpacing)
        rescaleBetasZeroSNR = try reader.read(.rescaleBetasZeroSNR, default: rescaleBetasZeroSNR)
        varianceType = try reader.read(.varianceType, default: varianceType)
        // Only used by thresholding, which is not supported.
        let _: Double = try reader.read(.dynamicThresholdingRatio, default: 0.995)
        let _: Double = try reader.read(.sampleMaxValue, default: 1)
        let thresholding = try reader.read(.thresholding, default: false)
        do throws(ConfigError) {
            if thresholding { throw ModelChecks.unsupported("thresholding", "true", "false") }
            try validate()
        } catch {
            throw error.placed(in: node, under: path)
        }
    }

    package var className: String { schedulerClass.rawValue }

    package var node: ConfigNode {
        var entries: [ConfigNode.Entry] = []
        func add(_ key: Key, _ value: ConfigNode) { entries.append(.init(key.rawValue, value)) }
        add(.betaEnd, .number(betaEnd))
        add(.betaSchedule, .string(betaSchedule.rawValue))
        add(.betaStart, .number(betaStart))
        add(.clipSample, .bool(clipSample))
        add(.clipSampleRange, .number(clipSampleRange))
        add(.dynamicThresholdingRatio, .number(0.995))
        add(.numTrainTimesteps, .integer(numTrainTimesteps))
        add(.predictionType, .string(predictionType.rawValue))
        add(.rescaleBetasZeroSNR, .bool(rescaleBetasZeroSNR))
        add(.sampleMaxValue, .number(1))
        if schedulerClass == .ddim { add(.setAlphaToOne, .bool(setAlphaToOne)) }
        add(.stepsOffset, .integer(stepsOffset))
        add(.thresholding, .bool(false))
        add(.timestepSpacing, .string(timestepSpacing.rawValue))
        add(.trainedBetas, trainedBetas.map { .numbers($0) } ?? .null)
        if schedulerClass == .ddpm { add(.varianceType, .string(varianceType.rawValue)) }
        return ConfigNode(.mapping(entries))
    }

    /// Differences that make a model trained with this noise process incompatible with the other: one phrase
    /// per differing key.
    package func noiseDifferences(from other: SchedulerConfig) -> [String] {
        noise.node.differences(from: other.noise.node)
    }

    /// The forward process and the prediction type, without keys that only affect sampling.
    private var noise: SchedulerConfig {
        var config = SchedulerConfig()
        config.numTrainTimesteps = numTrainTimesteps
        config.betaSchedule = betaSchedule
        // The cosine schedule has no beta_start and beta_end.
        if betaSchedule != .squaredCosine { (config.betaStart, config.betaEnd) = (betaStart, betaEnd) }
        config.trainedBetas = trainedBetas
        config.predictionType = predictionType
        config.rescaleBetasZeroSNR = rescaleBetasZeroSNR
        return config
    }

    package func validate() throws(ConfigError) {
        func fail(_ key: Key, _ message: String) -> ConfigError {
            ConfigError(.invalidValue, at: [key.rawValue], message)
        }
        if numTrainTimesteps < 1 || numTrainTimesteps > 1_000_000 {
            throw fail(.numTrainTimesteps, "found \(numTrainTimesteps), expected 1 to 1000000")
        }
        if !(betaStart > 0 && betaStart < 1) {
            throw fail(.betaStart, "found \(betaStart), expected more than 0 and less than 1")
        }
        if !(betaEnd >= betaStart && betaEnd < 1) {
            throw fail(
                .betaEnd, "found \(betaEnd), expected beta_start (\(betaStart)) or more and less than 1")
        }
        if let betas = trainedBetas {
            if betas.count != numTrainTimesteps {
                throw fail(
                    .trainedBetas,
                    "found \(betas.count) values, expected num_train_timesteps (\(numTrainTimesteps))")
            }
            for beta in betas where !(beta > 0 && beta < 1) {
                throw fail(.trainedBetas, "found \(beta), expected values between 0 and 1")
            }
        }
        if !(clipSampleRange > 0 && clipSampleRange.isFinite) {
            throw fail(.clipSampleRange, "found \(clipSampleRange), expected more than 0")
        }
        if stepsOffset < 0 || stepsOffset > numTrainTimesteps {
            throw fail(.stepsOffset, "found \(stepsOffset), expected 0 to \(numTrainTimesteps)")
        }
        if rescaleBetasZeroSNR {
            // x₀ = (x - √(1-ᾱ) ε)/√ᾱ divides by zero at the last timestep.
            if predictionType == .epsilon {
                throw fail(
                    .rescaleBetasZeroSNR,
                    "found true with prediction epsilon, which cannot predict x0 from pure noise;"
                        + " choose v_prediction or sample")
            }
            if numTrainTimesteps < 2 { throw fail(.rescaleBetasZeroSNR, "needs two timesteps or more") }
        }
    }
}
