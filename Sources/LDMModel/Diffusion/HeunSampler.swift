import FileFormats

/// Heun's method of second order on the diffusion ODE: an Euler step to the next noise level, repeated with
/// the mean of the slopes at both ends. Each noise level but the last takes two model evaluations.
///
/// An index here is a model evaluation: even ones are Euler steps, odd ones corrections at the level that the
/// step before led to.
///
/// Source: Karras et al. 2022 (arXiv 2206.00364), algorithm 1; step for step diffusers'
/// `HeunDiscreteScheduler`.
package struct HeunSampler: DiffusionSampler {
    package let schedule: NoiseSchedule
    package let timesteps: [Float]
    private let levels: NoiseLevels

    /// - Throws: `ConfigError` if there are more steps than training timesteps.
    package init(schedule: NoiseSchedule, steps: Int) throws(ConfigError) {
        self.schedule = schedule
        levels = try NoiseLevels(schedule, steps: steps)
        timesteps = Array(levels.timesteps.flatMap { [$0, $0] }.dropFirst())
    }

    /// The noise level at which the model is evaluated.
    private func level(_ index: Int) -> Int { (index + 1) / 2 }
    package func alphaBar(at index: Int) -> Float { levels.alphaBar(level(index)) }
    package func inputScale(at index: Int) -> Float { levels.level(level(index)).alpha }
    package var initialNoiseScale: Float { levels.initialScale(schedule.config.timestepSpacing) }
    package var evaluationsPerStep: Int { 2 }
    package func needsNoise(at index: Int) -> Bool { false }

    package func step(
        modelOutput: UnsafeBufferPointer<Float>, sample: UnsafeMutableBufferPointer<Float>, index: Int,
        history: inout SamplerHistory, noise: NoiseSource?
    ) {
        precondition(modelOutput.count == sample.count, "model output and sample differ in length")
        let slope = OriginalSlope(schedule.config, ratio: levels.ratios[level(index)])
        let slopes = sample.indices.map { slope(modelOutput[$0], sample[$0]) }
        let first = index / 2
        let step = levels.ratios[first + 1] - levels.ratios[first]
        if index % 2 == 0 {
            history.start = Array(sample)
            history.append(slopes, keeping: 1)
            for i in sample.indices { sample[i] += slopes[i] * step }
        } else {
            let before = history.output(0)
            for i in sample.indices {
                sample[i] = history.start[i] + (before[i] + slopes[i]) / 2 * step
            }
        }
    }
}
