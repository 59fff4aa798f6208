import FileFormats

/// Euler's method on the diffusion ODE dx = ε dρ of x = x₀ + ρ ε, and its ancestral variant, which steps to a
/// lower noise level and adds noise.
///
///     Euler:     x_next = x + (x - x₀)/ρ (ρ_next - ρ)
///     ancestral: x_next = x + (x - x₀)/ρ (ρ_down - ρ) + ρ_up z,
///                ρ_up² = ρ_next² (ρ² - ρ_next²)/ρ², ρ_down² = ρ_next² - ρ_up²
///
/// Source: Karras et al. 2022 (arXiv 2206.00364), algorithm 1 without its correction; step for step diffusers'
/// `EulerDiscreteScheduler` and `EulerAncestralDiscreteScheduler`.
package struct EulerSampler: LevelSampler {
    package let schedule: NoiseSchedule
    let levels: NoiseLevels

    /// - Throws: `ConfigError` if there are more steps than training timesteps.
    package init(schedule: NoiseSchedule, steps: Int) throws(ConfigError) {
        self.schedule = schedule
        levels = try NoiseLevels(schedule, steps: steps)
    }

    private var isAncestral: Bool { schedule.config.schedulerClass == .eulerAncestral }
    package func inputScale(at index: Int) -> Float { levels.level(index).alpha }
    package var initialNoiseScale: Float { levels.initialScale(schedule.config.timestepSpacing) }
    package func needsNoise(at index: Int) -> Bool { isAncestral && levels.ratios[index + 1] > 0 }

    package func step(
        modelOutput: UnsafeBufferPointer<Float>, sample: UnsafeMutableBufferPointer<Float>, index: Int,
        history: inout SamplerHistory, noise: NoiseSource?
    ) {
        precondition(modelOutput.count == sample.count, "model output and sample differ in length")
        let (from, to) = (levels.ratios[index], levels.ratios[index + 1])
        let up = isAncestral ? (to * to * (from * from - to * to) / (from * from)).squareRoot() : 0
        let target = isAncestral ? (to * to - up * up).squareRoot() : to
        let slope = OriginalSlope(schedule.config, ratio: from)
        for i in sample.indices {
            sample[i] += slope(modelOutput[i], sample[i]) * (target - from)
        }
        if needsNoise(at: index) { sample.addNoise(noise, scale: up) }
    }
}

/// dx/dρ = (x - x₀)/ρ for x = x₀ + ρ ε, with x₀ from the model's output for x/√(ρ² + 1).
struct OriginalSlope {
    private let prediction: PredictionType
    private let ratio: Float
    private let sampleFactor: Float
    private let outputFactor: Float
    private let clip: Float

    init(_ config: SchedulerConfig, ratio: Float) {
        prediction = config.predictionType
        self.ratio = ratio
        let variance = ratio * ratio + 1
        switch prediction {
        case .epsilon: (sampleFactor, outputFactor) = (1, -ratio)
        case .velocity: (sampleFactor, outputFactor) = (1 / variance, -ratio / variance.squareRoot())
        case .sample: (sampleFactor, outputFactor) = (0, 1)
        }
        clip = config.clipSample ? Float(config.clipSampleRange) : .infinity
    }

    @inline(__always)
    func callAsFunction(_ output: Float, _ x: Float) -> Float {
        let original = sampleFactor * x + outputFactor * output
        return (x - max(min(original, clip), -clip)) / ratio
    }
}
