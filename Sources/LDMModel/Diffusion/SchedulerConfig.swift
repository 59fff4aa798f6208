import FileFormats

/// The configuration of one of diffusers' schedulers (`scheduler_config.json`).
///
/// Source: diffusers 0.42, schedulers/scheduling_ddim.py and the files of the other classes. A class ignores
/// the keys of other classes, which diffusers retains if one scheduler is created from another's
/// configuration and saved; they take effect if the other class's sampler is used.
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
    /// Spaces the noise levels as Karras et al. 2022, equation 5.
    package var useKarrasSigmas = false
    /// Bounds of Karras noise levels; nil: those of the schedule.
    package var sigmaMin: Double?
    package var sigmaMax: Double?
    package var finalSigmas = FinalSigmas.zero
    package var interpolationType = SigmaInterpolation.linear
    package var solverOrder = 2
    package var solverType = SolverType.midpoint
    package var lowerOrderFinal = true
    package var algorithmType = SolverAlgorithm.ode
    package var eulerAtFinal = false
    package var lambdaMinClipped = LambdaLimit()
    /// Whether UniPC solves for x₀ or for ε.
    package var predictX0 = true
    /// Steps whose result UniPC does not correct.
    package var disableCorrector: [Int] = []

    package init() {}

    /// The defaults of a class.
    package init(_ schedulerClass: SchedulerClass) {
        self.schedulerClass = schedulerClass
        if schedulerClass != .ddim, schedulerClass != .ddpm {
            (clipSample, timestepSpacing) = (false, .linspace)
        }
        if schedulerClass == .heun { (betaStart, betaEnd) = (0.00085, 0.012) }
        if schedulerClass == .uniPC { solverType = .bh2 }
    }

    package mutating func begin(_ node: ConfigNode, path: [String]) throws(ConfigError) {
        guard let name = try Self.className(in: node, path: path) else { return }
        self = Self(SchedulerClass(rawValue: name) ?? .ddim)
    }

    package static let classNames = SchedulerClass.allCases.map(\.rawValue)
    package var className: String {
        get { schedulerClass.rawValue }
        set { schedulerClass = SchedulerClass(rawValue: newValue) ?? schedulerClass }
    }

    /// Keys without effect on these classes: obsolete keys of early files, and keys of diffusers' other
    /// schedulers.
    private static let keysWithoutEffect: Set<String> = [
        "tensor_format", "timestep_values", "rho", "sigma_data", "sigma_schedule", "skip_prk_steps",
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
            .init("clip_sample", \.clipSample, .harmless, "Clip the predicted x₀.").of(\.clips),
            .init(
                "clip_sample_range", \.clipSampleRange, .above(0), .harmless, "Limit of the predicted |x₀|."
            ).of(\.clips),
            // Only thresholding uses these two.
            .ineffective("dynamic_thresholding_ratio", 0.995, .harmless).of(\.preservesVariance),
            .init("num_train_timesteps", \.numTrainTimesteps, .within(1...1_000_000), noise, "T."),
            .init("prediction_type", \.predictionType, noise, "What the model predicts."),
            .init(
                "rescale_betas_zero_snr", \.rescaleBetasZeroSNR, noise,
                "Rescale β so that the last timestep is pure noise.",
                omitted: { $0.schedulerClass == .heun }),
            .ineffective("sample_max_value", 1.0, .harmless).of(\.preservesVariance),
            .init(
                "set_alpha_to_one", \.setAlphaToOne, .harmless,
                "Whether ᾱ before the first timestep is 1, otherwise that of timestep 0; DDIM only.",
                omitted: { $0.schedulerClass != .ddim }),
            .init(
                "steps_offset", \.stepsOffset, .atLeast(0), .harmless,
                "Added to the timesteps of leading spacing."),
            ConfigKey.fixed("thresholding", .bool(false), .harmless).of(\.preservesVariance),
            .init("timestep_spacing", \.timestepSpacing, .harmless, "Which timesteps a sampler visits."),
            .init(
                "trained_betas", \.trainedBetas, noise, "β of each timestep, instead of a schedule."),
            .init(
                "variance_type", \.varianceType, .harmless, "Variance of the added noise; DDPM only.",
                omitted: { $0.schedulerClass != .ddpm }),
        ] + levelKeys + solverKeys
    }

    /// Keys of the noise levels of all classes but DDIM and DDPM.
    private static var levelKeys: [ConfigKey<SchedulerConfig>] {
        let flows = "false; models of flow matching are not supported"
        return [
            .init(
                "use_karras_sigmas", \.useKarrasSigmas, .harmless,
                "Space the noise levels as Karras et al. 2022."
            ).of(\.hasKarrasSigmas),
            ConfigKey.fixed("use_exponential_sigmas", .bool(false), .harmless).of(\.hasKarrasSigmas),
            ConfigKey.fixed("use_beta_sigmas", .bool(false), .harmless).of(\.hasKarrasSigmas),
            ConfigKey.fixed("use_lu_lambdas", .bool(false), .harmless).of(.dpmSolver),
            ConfigKey.fixed("use_flow_sigmas", .bool(false), .harmless, expected: flows).of(\.isMultistep),
            ConfigKey.fixed("use_dynamic_shifting", .bool(false), .harmless, expected: flows)
                .of(\.isMultistep),
            // Only flow matching uses these.
            .ineffective("flow_shift", 1.0, .harmless).of(\.isMultistep),
            .ineffective("time_shift_type", "exponential", .harmless).of(\.isMultistep),
            ConfigKey.fixed("shift_terminal", ConfigNode(ConfigNode.Value.null), .harmless).of(.uniPC),
            .init(
                "sigma_min", \.sigmaMin, .above(0), .harmless,
                "The last of Karras noise levels; null for that of the schedule."
            ).of(.uniPC, .euler),
            .init(
                "sigma_max", \.sigmaMax, .above(0), .harmless,
                "The first of Karras noise levels; null for that of the schedule."
            ).of(.uniPC, .euler),
            .init("final_sigmas_type", \.finalSigmas, .harmless, "The noise level of the result.")
                .of(.dpmSolver, .uniPC, .euler),
            .init("interpolation_type", \.interpolationType, .harmless, "Spacing of the noise levels.")
                .of(.euler),
            ConfigKey.fixed("timestep_type", .string("discrete"), .harmless).of(.euler),
        ]
    }

    /// Keys of the multistep solvers.
    private static var solverKeys: [ConfigKey<SchedulerConfig>] {
        [
            .init("solver_order", \.solverOrder, .within(1...3), .harmless, "Order of the solver.")
                .of(\.isMultistep),
            .init(
                "solver_type", \.solverType, .harmless,
                "Variant: midpoint or heun of DPM-Solver++, bh1 or bh2 of UniPC."
            ).of(\.isMultistep),
            .init(
                "lower_order_final", \.lowerOrderFinal, .harmless,
                "Reduce the order in the last steps: of DPM-Solver++, if there are fewer than 15."
            ).of(\.isMultistep),
            .init("algorithm_type", \.algorithmType, .harmless, "The equation to solve.").of(.dpmSolver),
            .init("euler_at_final", \.eulerAtFinal, .harmless, "Make the last step one of order 1.")
                .of(.dpmSolver),
            .init(
                "lambda_min_clipped", \.lambdaMinClipped, .harmless,
                "Skip timesteps with a smaller ln √(ᾱ/(1-ᾱ)).",
                omitted: { $0.lambdaMinClipped == LambdaLimit() }
            ).of(.dpmSolver),
            .init("predict_x0", \.predictX0, .harmless, "Whether UniPC solves for x₀ or for ε.").of(.uniPC),
            .init(
                "disable_corrector", \.disableCorrector, .atLeast(0), .harmless,
                "Steps whose result UniPC does not correct."
            ).of(.uniPC),
            ConfigKey.fixed("solver_p", ConfigNode(ConfigNode.Value.null), .harmless).of(.uniPC),
        ]
    }

    package mutating func end(_ node: ConfigNode) { replaceForeignSolverType() }

    /// Replaces a solver type that only the other solver has by the class's default, as diffusers does.
    mutating func replaceForeignSolverType() {
        let ownTypes: [SolverType] = schedulerClass == .uniPC ? [.bh1, .bh2] : [.midpoint, .heun]
        if !ownTypes.contains(solverType) { solverType = Self(schedulerClass).solverType }
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
        config.trainedBetas = isWrittenOut ? nil : trainedBetas
        config.predictionType = predictionType
        config.rescaleBetasZeroSNR = rescaleBetasZeroSNR
        return config
    }

    /// Whether `trained_betas` are those of the sigmoid schedule.
    private var isWrittenOut: Bool {
        guard betaSchedule == .sigmoid, trainedBetas != nil else { return false }
        return withBetasWrittenOut.trainedBetas == trainedBetas
    }

    /// The same schedule for diffusers' classes that do not have its `beta_schedule`: they read β from
    /// `trained_betas`, which takes precedence.
    package var withBetasWrittenOut: SchedulerConfig {
        guard betaSchedule == .sigmoid, schedulerClass != .ddpm else { return self }
        var config = self
        config.trainedBetas = nil
        config.trainedBetas = NoiseSchedule.betas(config).map(Double.init)
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
        try checkSampler()
        guard rescaleBetasZeroSNR else { return }
        // x₀ = (x - √(1-ᾱ) ε)/√ᾱ divides by zero at the last timestep.
        try require(
            predictionType != .epsilon, "rescale_betas_zero_snr",
            "found true with prediction epsilon, which cannot predict x0 from pure noise;"
                + " choose v_prediction or sample")
        try require(numTrainTimesteps > 1, "rescale_betas_zero_snr", "needs two timesteps or more")
    }
    private func checkSampler() throws(ConfigError) {
        let name = schedulerClass.rawValue
        try require(
            schedulerClass != .eulerAncestral || predictionType != .sample, "prediction_type",
            "found sample, which \(name) does not support; choose another sampler")
        try require(
            schedulerClass != .heun || !rescaleBetasZeroSNR, "rescale_betas_zero_snr",
            "found true, which \(name) does not support; choose another sampler")
        try require(
            schedulerClass != .uniPC || predictX0 || finalSigmas == .sigmaMin, "predict_x0",
            "found false with final_sigmas_type zero: a clean sample has no noise to predict; use sigma_min")
        guard useKarrasSigmas, schedulerClass.hasKarrasSigmas else { return }
        try require(numTrainTimesteps > 1, "use_karras_sigmas", "needs two timesteps or more")
        try require(
            (sigmaMin ?? 0) < (sigmaMax ?? .infinity), "sigma_min",
            "found \(sigmaMin ?? 0), expected less than sigma_max (\(sigmaMax ?? 0))")
    }
}

extension ConfigKey<SchedulerConfig> {
    /// This key for the classes with a property; see `applying`.
    fileprivate func of(_ property: @escaping @Sendable (SchedulerClass) -> Bool) -> ConfigKey {
        applying { property($0.schedulerClass) }
    }

    fileprivate func of(_ classes: SchedulerClass...) -> ConfigKey {
        applying { classes.contains($0.schedulerClass) }
    }
}
