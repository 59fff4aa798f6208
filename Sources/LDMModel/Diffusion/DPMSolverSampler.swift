import FileFormats
import Foundation

/// DPM-Solver++ with several steps: a solver of order 1 to 3 for the diffusion ODE, or for the SDE, which adds
/// noise at each step.
///
/// With x₀ predicted at levels s₀ (now), s₁ and s₂ (before), and the next level t, h = λ_t - λ_s0:
///
///     ODE: x_t = σ_t/σ_s0 x - α_t (e^-h - 1) D₀ + c₁ D₁ + c₂ D₂
///     SDE: x_t = σ_t/σ_s0 e^-h x + α_t (1 - e^-2h) D₀ + c₁ D₁ + c₂ D₂ + σ_t √(1 - e^-2h) z
///
/// where D₀ is x₀ at s₀, and D₁ and D₂ are its first and second divided differences in λ.
///
/// Source: Lu et al. 2022 (arXiv 2211.01095), algorithm 2 and appendix B; step for step diffusers'
/// `DPMSolverMultistepScheduler`.
package struct DPMSolverSampler: LevelSampler {
    package let schedule: NoiseSchedule
    let levels: NoiseLevels

    /// - Throws: `ConfigError` if the schedule has too few timesteps for `steps`.
    package init(schedule: NoiseSchedule, steps: Int) throws(ConfigError) {
        self.schedule = schedule
        levels = try NoiseLevels(schedule, steps: steps)
    }

    private var isStochastic: Bool { schedule.config.algorithmType == .sde }
    package func needsNoise(at index: Int) -> Bool {
        isStochastic && levels.ratios[index + 1] > 0 && !isEmptyStep(index)
    }

    package func step(
        modelOutput: UnsafeBufferPointer<Float>, sample: UnsafeMutableBufferPointer<Float>, index: Int,
        history: inout SamplerHistory, noise: NoiseSource?
    ) {
        precondition(modelOutput.count == sample.count, "model output and sample differ in length")
        let config = schedule.config
        let now = levels.level(index)
        let estimate = CleanEstimate(config, signal: now.alpha, sigma: now.sigma)
        history.append(
            sample.indices.map { estimate.original(modelOutput[$0], sample[$0]) }, keeping: config.solverOrder
        )
        if isEmptyStep(index) { return }
        let order = order(at: index, known: history.outputs.count)
        let factors = factors(from: now, to: levels.level(index + 1), isSecond: order == 2)

        let m0 = history.output(0)
        switch order {
        case 1: for i in sample.indices { sample[i] = factors.sample * sample[i] + factors.d0 * m0[i] }
        case 2:
            let (m1, r0) = (history.output(1), factors.stepRatio(levels, index, age: 1))
            for i in sample.indices {
                let d1 = (1 / r0) * (m0[i] - m1[i])
                sample[i] = factors.sample * sample[i] + factors.d0 * m0[i] + factors.d1 * d1
            }
        default:
            let (m1, m2) = (history.output(1), history.output(2))
            let (r0, r1) = (
                factors.stepRatio(levels, index, age: 1), factors.stepRatio(levels, index, age: 2)
            )
            for i in sample.indices {
                let (newer, older) = ((1 / r0) * (m0[i] - m1[i]), (1 / r1) * (m1[i] - m2[i]))
                let d1 = newer + (r0 / (r0 + r1)) * (newer - older)
                let d2 = (1 / (r0 + r1)) * (newer - older)
                sample[i] =
                    factors.sample * sample[i] + factors.d0 * m0[i] + factors.d1 * d1 + factors.d2 * d2
            }
        }
        if needsNoise(at: index) { sample.addNoise(noise, scale: factors.noise) }
    }

    /// The order of a step. The last steps may be of lower order: always the one to pure x₀.
    private func order(at index: Int, known: Int) -> Int {
        let config = schedule.config
        let left = timesteps.count - index
        let lowers = config.lowerOrderFinal && timesteps.count < 15
        if left == 1, config.eulerAtFinal || lowers || config.finalSigmas == .zero { return 1 }
        return min(config.solverOrder, known, left == 2 && lowers ? 2 : 3)
    }

    /// The factors of a step; infinite h, at the step to pure x₀, occurs only for order 1.
    private struct Factors {
        let sample: Float
        let d0: Float
        let d1: Float
        let d2: Float
        let noise: Float
        /// h.
        let step: Float

        /// r = h of a previous step, divided by this one's.
        func stepRatio(_ levels: NoiseLevels, _ index: Int, age: Int) -> Float {
            (levels.level(index - age + 1).lambda - levels.level(index - age).lambda) / step
        }
    }

    private func factors(from now: NoiseLevel, to next: NoiseLevel, isSecond: Bool) -> Factors {
        let h = next.lambda - now.lambda
        let alpha = next.alpha
        let isMidpoint = isSecond && schedule.config.solverType != .heun
        guard isStochastic else {
            let e = exp(-h) - 1
            return Factors(
                sample: next.sigma / now.sigma, d0: -(alpha * e),
                d1: isMidpoint ? -0.5 * (alpha * e) : alpha * (e / h + 1),
                d2: -(alpha * ((e + h) / (h * h) - 0.5)), noise: 0, step: h)
        }
        let e = 1 - exp(-2 * h)
        return Factors(
            sample: next.sigma / now.sigma * exp(-h), d0: alpha * e,
            d1: isMidpoint ? 0.5 * (alpha * e) : alpha * (e / (-2 * h) + 1),
            d2: alpha * ((e - 2 * h) / ((2 * h) * (2 * h)) - 0.5),
            noise: next.sigma * e.squareRoot(), step: h)
    }
}
