import FileFormats
import Foundation

/// A noise level in the notation of solvers of the diffusion ODE: x = α x₀ + σ ε, with α² + σ² = 1.
///
/// Computed from ρ = σ/α in fp32, as in diffusers: differences of λ, and terms such as (e^-h - 1 + h)/h²,
/// amplify rounding errors, and more precise values would be different ones.
struct NoiseLevel {
    let alpha: Float
    let sigma: Float
    /// λ = ln α - ln σ, half the logarithm of the signal-to-noise ratio.
    var lambda: Float { log(alpha) - log(sigma) }

    /// - Parameter ratio: ρ = σ/α.
    init(ratio: Float) {
        alpha = 1 / (ratio * ratio + 1).squareRoot()
        sigma = ratio * alpha
    }
}

/// A sampler that evaluates the model once at each of its noise levels.
protocol LevelSampler: DiffusionSampler {
    var levels: NoiseLevels { get }
}

extension LevelSampler {
    package var timesteps: [Float] { levels.timesteps }
    package func alphaBar(at index: Int) -> Float { levels.alphaBar(index) }

    /// Whether a step leads to an equal level, as the last one does with Karras levels and
    /// `final_sigmas_type: sigma_min`. It changes nothing; the formulas would divide by zero, as diffusers does.
    func isEmptyStep(_ index: Int) -> Bool { levels.ratios[index] == levels.ratios[index + 1] }
}

/// The noise levels that a solver of the diffusion ODE visits, as ratios ρ = σ/α, with the timesteps at which
/// the model is evaluated.
///
/// Equal to `set_timesteps` of diffusers' multistep, Euler and Heun schedulers, in the same precision. Karras
/// levels are ρ_i = (ρ_max^(1/7) + i/(n-1) (ρ_min^(1/7) - ρ_max^(1/7)))⁷ (Karras et al. 2022, arXiv
/// 2206.00364, equation 5), with timesteps interpolated in ln ρ.
struct NoiseLevels: Sendable {
    /// Noisiest first.
    let timesteps: [Float]
    /// One more than timesteps; the last is that of the result.
    let ratios: [Float]

    /// - Throws: `ConfigError` if the schedule has too few timesteps for `steps`.
    init(_ schedule: NoiseSchedule, steps: Int) throws(ConfigError) {
        let config = schedule.config
        let training = Self.trainingRatios(schedule)
        let isMultistep = config.schedulerClass.isMultistep
        var timesteps =
            try isMultistep
            ? Self.multistep(schedule, steps).map(Double.init) : Self.singleStep(schedule, steps)
        var ratios = timesteps.map { Self.interpolate(training, at: $0) }
        if config.schedulerClass == .euler, config.interpolationType == .logLinear {
            ratios = NoiseSchedule.linspace(log(training[training.count - 1]), log(training[0]), steps + 1)
                .map { Double(exp($0)) }
        }
        var final = config.finalSigmas == .zero ? 0 : Double(training[0])
        if config.useKarrasSigmas, config.schedulerClass.hasKarrasSigmas {
            let range =
                isMultistep
                ? (Double(training[0]), Double(training[training.count - 1]))
                : (ratios[ratios.count - 1], ratios[0])
            ratios = Self.karras(
                from: config.sigmaMax ?? range.1, to: config.sigmaMin ?? range.0, count: steps)
            timesteps = Self.timesteps(of: ratios, training)
            switch config.schedulerClass {
            case .uniPC:
                timesteps = timesteps.map { $0.rounded(.toNearestOrEven) }
                if config.finalSigmas == .sigmaMin { final = ratios[ratios.count - 1] }
            case .dpmSolver:
                if config.betaSchedule != .squaredCosine {
                    timesteps = timesteps.map { $0.rounded(.toNearestOrEven) }
                }
                timesteps = timesteps.map { $0.rounded(.towardZero) }
            default: break
            }
        }
        if config.schedulerClass == .heun || config.schedulerClass == .eulerAncestral { final = 0 }
        self.timesteps = timesteps.map { Float($0) }
        self.ratios = (ratios + [final]).map { Float($0) }
    }

    func level(_ index: Int) -> NoiseLevel { NoiseLevel(ratio: ratios[index]) }

    /// ᾱ = α² of a level.
    func alphaBar(_ index: Int) -> Float { 1 / (ratios[index] * ratios[index] + 1) }

    /// Standard deviation of the initial sample of solvers whose sample is x/α. diffusers omits the variance
    /// of the clean sample for spacings that begin at the last timestep.
    func initialScale(_ spacing: TimestepSpacing) -> Float {
        let most = ratios.max() ?? 0
        return spacing == .leading ? (most * most + 1).squareRoot() : most
    }
}

extension NoiseLevels {
    /// ρ of each training timestep. Pure noise at the last one is replaced by ᾱ = 2⁻²⁴.
    private static func trainingRatios(_ schedule: NoiseSchedule) -> [Float] {
        var alphaBars = schedule.alphasCumprod
        if schedule.config.rescaleBetasZeroSNR { alphaBars[alphaBars.count - 1] = 0x1p-24 }
        return alphaBars.map { ((1 - $0) / $0).squareRoot() }
    }

    /// Timesteps of the solvers that end at the step before timestep 0; whole numbers.
    private static func multistep(_ schedule: NoiseSchedule, _ steps: Int) throws(ConfigError) -> [Int] {
        let config = schedule.config
        // Timesteps with λ below the limit are skipped.
        var last = schedule.count
        if config.schedulerClass == .dpmSolver, config.lambdaMinClipped.value > -.infinity {
            let limit = Float(config.lambdaMinClipped.value)
            last -=
                schedule.alphasCumprod.filter {
                    log($0.squareRoot()) - log((1 - $0).squareRoot()) < limit
                }.count
        }
        // With more steps, timesteps would occur twice, which the solvers cannot handle.
        let most = config.timestepSpacing == .trailing ? schedule.count : last - 1
        guard steps >= 1, steps <= most else {
            throw ConfigError(
                .invalidValue, at: ["steps"],
                "found \(steps) sampling steps, expected 1 to \(most) for \(config.schedulerClass.rawValue)"
                    + " and spacing \(config.timestepSpacing.rawValue)")
        }
        switch config.timestepSpacing {
        case .linspace:
            let stride = Double(last - 1) / Double(steps)
            return (1...steps).reversed().map { index in
                index == steps ? last - 1 : Int((Double(index) * stride).rounded(.toNearestOrEven))
            }
        case .leading:
            return (1...steps).reversed().map { $0 * (last / (steps + 1)) + config.stepsOffset }
        case .trailing:
            return schedule.trailingTimesteps(steps: steps, from: last)
        }
    }

    /// Timesteps of the solvers whose last step begins at timestep 0; linspace yields fractions.
    private static func singleStep(
        _ schedule: NoiseSchedule, _ steps: Int
    ) throws(ConfigError) -> [Double] {
        let whole = try schedule.timesteps(steps: steps)
        guard schedule.config.timestepSpacing == .linspace, steps > 1 else { return whole.map(Double.init) }
        let stride = Double(schedule.count - 1) / Double(steps - 1)
        return (0..<steps).reversed().map { index in
            index == steps - 1 ? Double(schedule.count - 1) : Double(Float(Double(index) * stride))
        }
    }

    /// numpy's `interp` of values at 0, 1, 2, ….
    private static func interpolate(_ values: [Float], at position: Double) -> Double {
        let index = Int(position)
        guard index >= 0, index < values.count - 1 else {
            return Double(position < 0 ? values[0] : values[values.count - 1])
        }
        let (low, high) = (Double(values[index]), Double(values[index + 1]))
        return (high - low) * (position - Double(index)) + low
    }

    private static func karras(from most: Double, to least: Double, count: Int) -> [Double] {
        let (high, low) = (pow(most, 1 / 7.0), pow(least, 1 / 7.0))
        return (0..<count).map { index in
            // As numpy's linspace, which ends exactly at 1.
            let ramp =
                index > 0 && index == count - 1 ? 1 : Double(index) * (1 / Double(max(1, count - 1)))
            return pow(high + ramp * (low - high), 7)
        }
    }

    /// The timesteps of noise levels, by linear interpolation in ln ρ; diffusers' `_sigma_to_t`.
    private static func timesteps(of ratios: [Double], _ training: [Float]) -> [Double] {
        let logs = training.map { log($0) }
        return ratios.map { ratio in
            let value = log(max(ratio, 1e-10))
            let below = logs.lastIndex { value - Double($0) >= 0 } ?? 0
            let index = min(below, logs.count - 2)
            let weight = (Double(logs[index]) - value) / Double(logs[index] - logs[index + 1])
            // NaN, for a schedule whose first timestep has no noise in fp32, becomes 0.
            let clamped = weight > 0 ? min(weight, 1) : 0
            return (1 - clamped) * Double(index) + clamped * Double(index + 1)
        }
    }
}
