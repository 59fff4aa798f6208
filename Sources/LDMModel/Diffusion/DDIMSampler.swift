import FileFormats

/// Denoising diffusion implicit models: deterministic for η = 0, ancestral for η = 1.
///
/// x_prev = √ᾱ_prev x₀ + √(1 - ᾱ_prev - σ²) ε + σ z, with
/// σ = η √((1 - ᾱ_prev)/(1 - ᾱ_t)) √(1 - ᾱ_t/ᾱ_prev).
///
/// Source: Song, Meng and Ermon 2021 (arXiv 2010.02502), equations 12 and 16; step for step diffusers'
/// `DDIMScheduler.step`, where the previous timestep is t - T/steps regardless of the spacing.
package struct DDIMSampler: DiffusionSampler {
    package let schedule: NoiseSchedule
    package let timesteps: [Float]
    private let visited: [Int]
    /// η, in 0...1.
    package let eta: Float

    /// - Throws: `ConfigError` if there are more steps than training timesteps, or if η is outside 0...1.
    package init(schedule: NoiseSchedule, steps: Int, eta: Double = 0) throws(ConfigError) {
        guard eta >= 0, eta <= 1 else {
            throw ConfigError(.invalidValue, at: ["eta"], "found \(eta), expected 0 to 1")
        }
        self.schedule = schedule
        self.eta = Float(eta)
        visited = try schedule.timesteps(steps: steps)
        timesteps = visited.map(Float.init)
    }

    package func alphaBar(at index: Int) -> Float { schedule.alphasCumprod[visited[index]] }
    package func needsNoise(at index: Int) -> Bool { eta > 0 }

    /// ᾱ that the step at this index leads to.
    func alphaBarAfter(_ index: Int) -> Float {
        let previous = visited[index] - schedule.count / visited.count
        return previous >= 0 ? schedule.alphasCumprod[previous] : schedule.finalAlphaBar
    }

    package func step(
        modelOutput: UnsafeBufferPointer<Float>, sample: UnsafeMutableBufferPointer<Float>, index: Int,
        history: inout SamplerHistory, noise: NoiseSource?
    ) {
        precondition(modelOutput.count == sample.count, "model output and sample differ in length")
        let t = visited[index]
        let alphaBar = schedule.alphasCumprod[t]
        let alphaBarPrevious = alphaBarAfter(index)
        let variance = (1 - alphaBarPrevious) / (1 - alphaBar) * (1 - alphaBar / alphaBarPrevious)
        let sigma = eta * variance.squareRoot()
        let signalPrevious = alphaBarPrevious.squareRoot()
        // Rounding may yield a negative number if the exact value is 0, at η = 1.
        let direction = max(0, 1 - alphaBarPrevious - sigma * sigma).squareRoot()
        let denoiser = CleanEstimate(schedule, timestep: t)

        for i in sample.indices {
            let (output, x) = (modelOutput[i], sample[i])
            sample[i] =
                signalPrevious * denoiser.original(output, x) + direction * denoiser.epsilon(output, x)
        }
        if eta > 0 { sample.addNoise(noise, scale: sigma) }
    }
}

extension NoiseSchedule {
    /// ᾱ before the first timestep.
    var finalAlphaBar: Float { config.setAlphaToOne ? 1 : alphasCumprod[0] }
}

extension UnsafeMutableBufferPointer where Element == Float {
    /// Adds `scale` times standard normal numbers.
    func addNoise(_ source: NoiseSource?, scale: Float) {
        guard let source else {
            preconditionFailure("this sampling step draws noise, and no source was given")
        }
        withUnsafeTemporaryAllocation(of: Float.self, capacity: count) { noise in
            source(noise)
            for i in indices { self[i] += scale * noise[i] }
        }
    }
}

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
    package let timesteps: [Float]
    private let visited: [Int]

    /// - Throws: `ConfigError` if there are more steps than training timesteps; for linspace spacing, which
    ///   cannot be inverted step by step; and if a model that predicts x₀ would have to be evaluated on a
    ///   clean sample, from which the noise cannot be derived.
    package init(schedule: NoiseSchedule, steps: Int) throws(ConfigError) {
        let config = schedule.config
        guard config.timestepSpacing != .linspace else {
            throw ConfigError(
                .unsupported, at: ["timestep_spacing"],
                "is linspace, but inversion requires leading or trailing")
        }
        guard config.predictionType != .sample || !config.setAlphaToOne else {
            throw ConfigError(
                .unsupported, at: ["prediction_type"],
                "is sample with set_alpha_to_one: inversion cannot derive the noise of a clean sample")
        }
        self.schedule = schedule
        visited = try schedule.timesteps(steps: steps).reversed()
        timesteps = visited.map(Float.init)
    }

    /// ᾱ before the step: of the sample, not of the timestep that the model is evaluated at.
    package func alphaBar(at index: Int) -> Float {
        let current = visited[index] - schedule.count / visited.count
        return current >= 0 ? schedule.alphasCumprod[current] : schedule.finalAlphaBar
    }
    package func needsNoise(at index: Int) -> Bool { false }

    package func step(
        modelOutput: UnsafeBufferPointer<Float>, sample: UnsafeMutableBufferPointer<Float>, index: Int,
        history: inout SamplerHistory, noise: NoiseSource?
    ) {
        precondition(modelOutput.count == sample.count, "model output and sample differ in length")
        let next = visited[index]
        let estimate = CleanEstimate(schedule, alphaBar: alphaBar(at: index))
        let (signal, sigma) = (schedule.signalScale(next), schedule.noiseScale(next))
        for i in sample.indices {
            let (output, x) = (modelOutput[i], sample[i])
            sample[i] = signal * estimate.original(output, x) + sigma * estimate.epsilon(output, x)
        }
    }
}
