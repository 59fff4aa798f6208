import FileFormats
import Foundation

/// Ancestral sampling of denoising diffusion probabilistic models.
///
/// x_prev = (√ᾱ_prev β_t)/(1 - ᾱ_t) x₀ + √α_t (1 - ᾱ_prev)/(1 - ᾱ_t) x_t + √variance z, where α_t =
/// ᾱ_t/ᾱ_prev and β_t = 1 - α_t cover the interval to the next visited timestep; no noise is added at
/// timestep 0.
///
/// Source: Ho, Jain and Abbeel 2020 (arXiv 2006.11239), equations 6 and 7; step for step diffusers'
/// `DDPMScheduler.step`.
package struct DDPMSampler: DiffusionSampler {
    package let schedule: NoiseSchedule
    package let timesteps: [Float]
    private let visited: [Int]

    /// - Throws: `ConfigError` if there are more steps than training timesteps.
    package init(schedule: NoiseSchedule, steps: Int) throws(ConfigError) {
        self.schedule = schedule
        visited = try schedule.timesteps(steps: steps)
        timesteps = visited.map(Float.init)
    }

    package func alphaBar(at index: Int) -> Float { schedule.alphasCumprod[visited[index]] }
    package func needsNoise(at index: Int) -> Bool { visited[index] > 0 }

    package func step(
        modelOutput: UnsafeBufferPointer<Float>, sample: UnsafeMutableBufferPointer<Float>, index: Int,
        history: inout SamplerHistory, noise: NoiseSource?
    ) {
        precondition(modelOutput.count == sample.count, "model output and sample differ in length")
        let t = visited[index]
        let alphaBar = schedule.alphasCumprod[t]
        let alphaBarPrevious = index + 1 < visited.count ? schedule.alphasCumprod[visited[index + 1]] : 1
        let alpha = alphaBar / alphaBarPrevious
        let beta = 1 - alpha
        let originalFactor = alphaBarPrevious.squareRoot() * beta / (1 - alphaBar)
        let sampleFactor = alpha.squareRoot() * (1 - alphaBarPrevious) / (1 - alphaBar)
        let denoiser = CleanEstimate(schedule, timestep: t)

        for i in sample.indices {
            let x = sample[i]
            sample[i] = originalFactor * denoiser.original(modelOutput[i], x) + sampleFactor * x
        }
        if t > 0 {
            let posterior = max((1 - alphaBarPrevious) / (1 - alphaBar) * beta, 1e-20)
            let deviation: Float
            switch schedule.config.varianceType {
            case .fixedSmall: deviation = posterior.squareRoot()
            case .fixedSmallLog: deviation = exp(0.5 * log(posterior))
            case .fixedLarge: deviation = beta.squareRoot()
            }
            sample.addNoise(noise, scale: deviation)
        }
    }
}
