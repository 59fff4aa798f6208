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
    package var numTrainTimesteps = 1000
    package var betaStart = 0.0001
    package var betaEnd = 0.02
    package var betaSchedule = BetaSchedule.linear
    package var trainedBetas: [Double]?
    package var clipSample = true
    package var clipSampleRange = 1.0
    package var setAlphaToOne = true
    package var stepsOffset = 0
    package var predictionType = PredictionType.epsilon
    package var timestepSpacing = TimestepSpacing.leading
    /// Rescales β so that the last timestep is pure noise (Lin et al. 2023, Algorithm 1).
    package var rescaleBetasZeroSNR = false
    package var varianceType = VarianceType.fixedSmall

    package init() {}

    package static let classNames = SchedulerClass.allCases.map(\.rawValue)
    package var className: String {
        get { schedulerClass.rawValue }
        set { schedulerClass = SchedulerClass(rawValue: newValue) ?? schedulerClass }
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

    package static func ignores(_ key: String) -> Bool {
        key.hasPrefix("_") || keysWithoutEffect.contains(key)
    }

    package static var keys: [ConfigKey<SchedulerConfig>] {
        let noise = ChangeEffect.harmful("the model was trained with different noise")
        return [
            .init("beta_end", \.betaEnd, .above(0, below: 1), noise, "β of the last timestep."),
            .init("beta_schedule", \.betaSchedule, noise, "How β increases over the timesteps."),
            .init("beta_start", \.betaStart, .above(0, below: 1), noise, "β of the first timestep."),
            .init("clip_sample", \.clipSample, .harmless, "Clip the predicted x₀."),
            .init(
                "clip_sample_range", \.clipSampleRange, .above(0), .harmless, "Limit of the predicted |x₀|."),
            // Only thresholding uses these two.
            .ineffective("dynamic_thresholding_ratio", 0.995, .harmless),
            .init("num_train_timesteps", \.numTrainTimesteps, .within(1...1_000_000), noise, "T."),
            .init("prediction_type", \.predictionType, noise, "What the model predicts."),
            .init(
                "rescale_betas_zero_snr", \.rescaleBetasZeroSNR, noise,
                "Rescale β so that the last timestep is pure noise."),
            .ineffective("sample_max_value", 1.0, .harmless),
            .init(
                "set_alpha_to_one", \.setAlphaToOne, .harmless,
                "Whether ᾱ before the first timestep is 1, otherwise that of timestep 0; DDIM only.",
                omitted: { $0.schedulerClass != .ddim }),
            .init(
                "steps_offset", \.stepsOffset, .atLeast(0), .harmless,
                "Added to the timesteps of leading spacing."),
            .fixed("thresholding", .bool(false), .harmless),
            .init("timestep_spacing", \.timestepSpacing, .harmless, "Which timesteps a sampler visits."),
            .init(
                "trained_betas", \.trainedBetas, noise, "β of each timestep, instead of a schedule."),
            .init(
                "variance_type", \.varianceType, .harmless, "Variance of the added noise; DDPM only.",
                omitted: { $0.schedulerClass != .ddpm }),
        ]
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

    package func check() throws(ConfigError) {
        try require(
            betaEnd >= betaStart, "beta_end",
            "found \(betaEnd), expected beta_start (\(betaStart)) or more and less than 1")
        if let betas = trainedBetas {
            try require(
                betas.count == numTrainTimesteps, "trained_betas",
                "found \(betas.count) values, expected num_train_timesteps (\(numTrainTimesteps))")
            for beta in betas {
                try require(
                    beta > 0 && beta < 1, "trained_betas", "found \(beta), expected values between 0 and 1")
            }
        }
        try require(
            stepsOffset <= numTrainTimesteps, "steps_offset",
            "found \(stepsOffset), expected 0 to \(numTrainTimesteps)")
        guard rescaleBetasZeroSNR else { return }
        // x₀ = (x - √(1-ᾱ) ε)/√ᾱ divides by zero at the last timestep.
        try require(
            predictionType != .epsilon, "rescale_betas_zero_snr",
            "found true with prediction epsilon, which cannot predict x0 from pure noise;"
                + " choose v_prediction or sample")
        try require(numTrainTimesteps > 1, "rescale_betas_zero_snr", "needs two timesteps or more")
    }
}
