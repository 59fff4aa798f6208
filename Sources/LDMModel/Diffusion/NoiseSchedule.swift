import FileFormats
import Foundation

/// The forward process x_t = √ᾱ_t x₀ + √(1-ᾱ_t) ε, with the quantities that training needs.
///
/// The tables are computed in the same precision as in diffusers (β and α in fp32, their product accumulated
/// in fp64 and rounded to fp32, as PyTorch's cumprod does on CPUs), so that the noise levels match.
///
/// Notation: β_t, α_t = 1 - β_t, ᾱ_t = α_0 ⋯ α_t, SNR_t = ᾱ_t / (1 - ᾱ_t), with t in 0..<T.
/// Source: Ho, Jain and Abbeel 2020 (arXiv 2006.11239); diffusers 0.42, schedulers/scheduling_ddpm.py.
package struct NoiseSchedule: Sendable {
    package let config: SchedulerConfig
    /// β_t.
    package let betas: [Float]
    /// ᾱ_t.
    package let alphasCumprod: [Float]

    /// T, the number of training timesteps.
    package var count: Int { betas.count }

    /// Validates the configuration and builds the tables.
    package init(_ config: SchedulerConfig) throws(ConfigError) {
        try config.validate()
        self.config = config
        var betas = Self.betas(config)
        if config.rescaleBetasZeroSNR { betas = Self.rescaledToZeroTerminalSNR(betas) }
        self.betas = betas
        alphasCumprod = Self.cumulativeProduct(betas.map { 1 - $0 })
    }

    /// √ᾱ_t, the factor of the clean sample.
    package func signalScale(_ t: Int) -> Float { alphasCumprod[t].squareRoot() }

    /// √(1-ᾱ_t), the factor of the noise.
    package func noiseScale(_ t: Int) -> Float { (1 - alphasCumprod[t]).squareRoot() }

    /// SNR_t = ᾱ_t / (1 - ᾱ_t); 0 at the last timestep of a rescaled schedule.
    package func snr(_ t: Int) -> Double {
        let alphaBar = Double(alphasCumprod[t])
        return alphaBar / (1 - alphaBar)
    }

    /// Weight of a sample's squared error under min-SNR-γ weighting, for this schedule's prediction type.
    ///
    /// min(SNR, γ)/SNR for ε, min(SNR, γ)/(SNR + 1) for v, min(SNR, γ) for x₀; 1 if γ is nil.
    /// Source: Hang et al. 2023 (arXiv 2303.09556), equations 8 and 9.
    package func lossWeight(_ t: Int, minSNRGamma gamma: Double?) -> Float {
        guard let gamma else { return 1 }
        let snr = snr(t)
        switch config.predictionType {
        // For SNR -> 0 the limit is 1; avoid the division by zero.
        case .epsilon: return Float(snr <= gamma ? 1 : gamma / snr)
        case .velocity: return Float(min(snr, gamma) / (snr + 1))
        case .sample: return Float(min(snr, gamma))
        }
    }

    /// x_t = √ᾱ_t x₀ + √(1-ᾱ_t) ε, elementwise; `noisy` may alias `clean` or `noise`.
    package func addNoise(
        clean: UnsafeBufferPointer<Float>, noise: UnsafeBufferPointer<Float>, timestep t: Int,
        into noisy: UnsafeMutableBufferPointer<Float>
    ) {
        precondition(clean.count == noise.count && clean.count == noisy.count, "buffers of different length")
        let (signal, sigma) = (signalScale(t), noiseScale(t))
        for i in noisy.indices { noisy[i] = signal * clean[i] + sigma * noise[i] }
    }

    /// The training target of the model for x_t, by prediction type: ε, v = √ᾱ_t ε - √(1-ᾱ_t) x₀, or x₀.
    package func target(
        clean: UnsafeBufferPointer<Float>, noise: UnsafeBufferPointer<Float>, timestep t: Int,
        into target: UnsafeMutableBufferPointer<Float>
    ) {
        precondition(clean.count == noise.count && clean.count == target.count, "buffers of different length")
        switch config.predictionType {
        case .epsilon: for i in target.indices { target[i] = noise[i] }
        case .sample: for i in target.indices { target[i] = clean[i] }
        case .velocity:
            let (signal, sigma) = (signalScale(t), noiseScale(t))
            for i in target.indices { target[i] = signal * noise[i] - sigma * clean[i] }
        }
    }

    /// The training timesteps that a sampler with `steps` steps visits, noisiest first.
    ///
    /// Equal to diffusers' `set_timesteps`, with one exception: if rounding makes numpy's `arange` yield one
    /// entry too many for trailing spacing (timestep -1), the surplus entry is dropped.
    package func timesteps(steps: Int) throws(ConfigError) -> [Int] {
        guard steps >= 1, steps <= count else {
            throw ConfigError(
                .invalidValue, at: ["steps"],
                "found \(steps) sampling steps, expected 1 to \(count), the model's training timesteps")
        }
        switch config.timestepSpacing {
        case .linspace:
            if steps == 1 { return [0] }
            let stride = Double(count - 1) / Double(steps - 1)
            return (0..<steps).reversed().map { index in
                index == steps - 1 ? count - 1 : Int((Double(index) * stride).rounded(.toNearestOrEven))
            }
        case .leading:
            let ratio = count / steps
            let last = (steps - 1) * ratio + config.stepsOffset
            guard last < count else {
                throw ConfigError(
                    .invalidValue, at: ["steps_offset"],
                    "\(steps) steps with offset \(config.stepsOffset) reach timestep \(last),"
                        + " the last one is \(count - 1)"
                )
            }
            return (0..<steps).reversed().map { $0 * ratio + config.stepsOffset }
        case .trailing:
            return trailingTimesteps(steps: steps, from: count)
        }
    }

    /// Timesteps of trailing spacing below `last`, T/steps apart: fewer than `steps` if `last` is less than T.
    func trailingTimesteps(steps: Int, from last: Int) -> [Int] {
        let ratio = Double(count) / Double(steps)
        let delta = Double(last) - ratio - Double(last)
        let length = last == count ? steps : Int((Double(last) / ratio).rounded(.up))
        return (0..<length).map { index in
            max(0, Int((Double(last) + Double(index) * delta).rounded(.toNearestOrEven)) - 1)
        }
    }
}

extension NoiseSchedule {
    static func betas(_ config: SchedulerConfig) -> [Float] {
        if let betas = config.trainedBetas { return betas.map { Float($0) } }
        let count = config.numTrainTimesteps
        switch config.betaSchedule {
        case .linear:
            return linspace(Float(config.betaStart), Float(config.betaEnd), count)
        case .scaledLinear:
            return linspace(Float(config.betaStart.squareRoot()), Float(config.betaEnd.squareRoot()), count)
                .map { $0 * $0 }
        case .sigmoid:
            let range = Float(config.betaEnd - config.betaStart)
            return linspace(-6, 6, count).map { 1 / (1 + exp(-$0)) * range + Float(config.betaStart) }
        case .squaredCosine:
            // ᾱ(u) = cos²((u + s)/(1 + s) π/2), s = 0.008: Nichol and Dhariwal 2021, equation 17.
            func alphaBar(_ u: Double) -> Double {
                let cosine = cos((u + 0.008) / 1.008 * .pi / 2)
                return cosine * cosine
            }
            return (0..<count).map { index in
                let ratio =
                    alphaBar(Double(index + 1) / Double(count)) / alphaBar(Double(index) / Double(count))
                return Float(min(1 - ratio, 0.999))
            }
        }
    }

    /// Bit-identical to PyTorch's linspace in fp32: each half is computed from its own end, with fused
    /// multiply-add.
    static func linspace(_ start: Float, _ end: Float, _ count: Int) -> [Float] {
        if count == 1 { return [start] }
        let step = (end - start) / Float(count - 1)
        return (0..<count).map { index in
            index < count / 2
                ? start.addingProduct(step, Float(index)) : end.addingProduct(-step, Float(count - index - 1))
        }
    }

    private static func cumulativeProduct(_ alphas: [Float]) -> [Float] {
        var product = 1.0
        return alphas.map { alpha in
            product *= Double(alpha)
            return Float(product)
        }
    }

    /// Shifts and scales √ᾱ so that its last value is 0 and its first value is unchanged (Lin et al. 2023,
    /// Algorithm 1).
    private static func rescaledToZeroTerminalSNR(_ betas: [Float]) -> [Float] {
        let roots = cumulativeProduct(betas.map { 1 - $0 }).map { $0.squareRoot() }
        guard let first = roots.first, let last = roots.last else { return betas }
        let scale = first / (first - last)
        let alphaBars = roots.map { root in
            let rescaled = (root - last) * scale
            return rescaled * rescaled
        }
        return alphaBars.indices.map { 1 - ($0 == 0 ? alphaBars[0] : alphaBars[$0] / alphaBars[$0 - 1]) }
    }
}
