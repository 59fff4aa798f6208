import FileFormats

/// DDIM inversion, from a sample to the noise that generates it: each step moves the sample to the next
/// noisier timestep, with the noise that the model predicts for it.
///
/// x_next = √ᾱ_next x₀ + √(1 - ᾱ_next) ε, where x₀ and ε follow from x_t and the model's output. The model is
/// evaluated at the timestep that the step leads to, so a round trip through `DDIMSampler` is exact only to
/// the extent that the model's output is constant within a step.
///
/// Source: Song, Meng and Ermon 2021 (arXiv 2010.02502), section 4.3; step for step diffusers'
/// `DDIMInverseScheduler`.
package struct DDIMInversion: DiffusionSampler {
    package let schedule: NoiseSchedule
    /// Noisiest last, the reverse of a sampler's order.
    package let timesteps: [Int]

    /// - Throws: `ConfigError` if there are more steps than training timesteps; for linspace spacing, which
    ///   cannot be inverted step by step; and if a model that predicts x₀ would have to be evaluated on a
    ///   clean sample, from which the noise cannot be derived.
    package init(schedule: NoiseSchedule, steps: Int) throws(ConfigError) {
        let config = schedule.config
        guard config.timestepSpacing != .linspace else {
            throw ConfigError(
                .unsupported, at: ["timestep_spacing"],
                "is linspace, expected leading or trailing for an inversion")
        }
        guard config.predictionType != .sample || !config.setAlphaToOne else {
            throw ConfigError(
                .unsupported, at: ["prediction_type"],
                "is sample with set_alpha_to_one: the noise in a clean sample is not defined")
        }
        self.schedule = schedule
        timesteps = try schedule.timesteps(steps: steps).reversed()
    }

    package func needsNoise(at index: Int) -> Bool { false }

    package func step(
        modelOutput: UnsafeBufferPointer<Float>, sample: UnsafeMutableBufferPointer<Float>, index: Int,
        noise: NoiseSource? = nil
    ) {
        precondition(modelOutput.count == sample.count, "model output and sample differ in length")
        let next = timesteps[index]
        let current = next - schedule.count / timesteps.count
        let estimate = CleanEstimate(
            schedule, alphaBar: current >= 0 ? schedule.alphasCumprod[current] : schedule.finalAlphaBar)
        let (signal, sigma) = (schedule.signalScale(next), schedule.noiseScale(next))
        for i in sample.indices {
            let (output, x) = (modelOutput[i], sample[i])
            sample[i] = signal * estimate.original(output, x) + sigma * estimate.epsilon(output, x)
        }
    }
}
