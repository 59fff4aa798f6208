import FileFormats
import Foundation

/// UniPC: a multistep predictor, whose result is corrected with the model's next output, without further
/// model evaluations.
///
/// With m₀ = the converted output at level s₀, m_k those before it, r_k = (λ_sk - λ_s0)/h, and g = α for
/// x₀-prediction and σ for ε-prediction (in which α and σ are exchanged, and h has the other sign):
///
///     x_t = σ_t/σ_s0 x - α_t (e^-h - 1) m₀ - g_t B(h) Σ_k ρ_k (m_k - m₀)/r_k
///
/// The corrector has one more term, for the model's output at t. ρ solves R ρ = b (equation 8 there).
///
/// Source: Zhao et al. 2023 (arXiv 2302.04867), algorithms 5 to 8; step for step diffusers'
/// `UniPCMultistepScheduler`. The step to pure x₀ is always of order 1: there, diffusers yields NaN for
/// solver_type bh1, and without lower_order_final.
package struct UniPCSampler: LevelSampler {
    package let schedule: NoiseSchedule
    let levels: NoiseLevels

    /// - Throws: `ConfigError` if the schedule has too few timesteps for `steps`.
    package init(schedule: NoiseSchedule, steps: Int) throws(ConfigError) {
        self.schedule = schedule
        levels = try NoiseLevels(schedule, steps: steps)
    }

    package func needsNoise(at index: Int) -> Bool { false }

    package func step(
        modelOutput: UnsafeBufferPointer<Float>, sample: UnsafeMutableBufferPointer<Float>, index: Int,
        history: inout SamplerHistory, noise: NoiseSource?
    ) {
        precondition(modelOutput.count == sample.count, "model output and sample differ in length")
        let config = schedule.config
        let now = levels.level(index)
        let estimate = CleanEstimate(config, signal: now.alpha, sigma: now.sigma)
        let converted = sample.indices.map { i in
            config.predictX0
                ? estimate.original(modelOutput[i], sample[i]) : estimate.epsilon(modelOutput[i], sample[i])
        }
        if !history.outputs.isEmpty, !config.disableCorrector.contains(index - 1) {
            let update = Update(
                self, from: index - 1, to: index, order: history.order, corrects: true, history)
            update.apply(to: history.start, history, corrected: converted, into: sample)
        }
        history.append(converted, keeping: config.solverOrder)
        if isEmptyStep(index) { return }
        let left = timesteps.count - index
        history.order = min(
            config.solverOrder, history.outputs.count,
            config.lowerOrderFinal ? left : config.solverOrder,
            levels.ratios[index + 1] == 0 ? 1 : config.solverOrder)
        history.start = Array(sample)
        let update = Update(self, from: index, to: index + 1, order: history.order, corrects: false, history)
        update.apply(to: history.start, history, corrected: nil, into: sample)
    }

    /// The factors of a predictor or corrector step.
    private struct Update {
        /// Of x and m₀.
        let sample: Float
        let m0: Float
        /// -g B(h).
        let scale: Float
        /// ρ_k and 1/r_k of the outputs before m₀, newest first; for the corrector, also ρ of the new output.
        let rhos: [Float]
        let ratios: [Float]

        init(
            _ sampler: UniPCSampler, from s0: Int, to t: Int, order: Int, corrects: Bool,
            _ history: SamplerHistory
        ) {
            let (levels, config) = (sampler.levels, sampler.schedule.config)
            let (now, next) = (levels.level(s0), levels.level(t))
            let h = next.lambda - now.lambda
            ratios = (1..<max(1, order)).map { (levels.level(s0 - $0).lambda - now.lambda) / h }
            let hh = config.predictX0 ? -h : h
            let phi1 = expm1(hh)
            let b = config.solverType == .bh1 ? hh : phi1
            if config.predictX0 {
                (sample, m0, scale) = (next.sigma / now.sigma, -(next.alpha * phi1), -(next.alpha * b))
            } else {
                (sample, m0, scale) = (next.alpha / now.alpha, -(next.sigma * phi1), -(next.sigma * b))
            }
            let unknowns = corrects ? order : order - 1
            // As in the reference implementation: exact solutions of these would not have higher order.
            if unknowns == 1 {
                rhos = [0.5]
            } else {
                rhos = Self.solve(nodes: ratios + [1], unknowns, hh: hh, phi1: phi1, b: b)
            }
        }

        /// Solves Σ_k r_k^(i-1) ρ_k = i! φ_(i+1)(h) h^i/B(h), i = 1 … unknowns.
        private static func solve(
            nodes: [Float], _ unknowns: Int, hh: Float, phi1: Float, b: Float
        ) -> [Float] {
            var rows: [[Float]] = []
            var phi = phi1 / hh - 1
            var factorial: Float = 1
            for i in 0..<unknowns {
                rows.append(
                    nodes[..<unknowns].map { i == 0 ? 1 : pow($0, Float(i)) } + [phi * factorial / b])
                factorial *= Float(i + 2)
                phi = phi / hh - 1 / factorial
            }
            // Gaussian elimination with partial pivoting.
            for column in 0..<unknowns {
                let pivot = (column..<unknowns).max { abs(rows[$0][column]) < abs(rows[$1][column]) }
                rows.swapAt(column, pivot ?? column)
                for row in column + 1..<unknowns {
                    let factor = rows[row][column] / rows[column][column]
                    for k in column...unknowns { rows[row][k] -= factor * rows[column][k] }
                }
            }
            var solution = [Float](repeating: 0, count: unknowns)
            for row in (0..<unknowns).reversed() {
                let known = (row + 1..<unknowns).reduce(Float(0)) { $0 + rows[row][$1] * solution[$1] }
                solution[row] = (rows[row][unknowns] - known) / rows[row][row]
            }
            return solution
        }

        /// - Parameter corrected: the converted output at t, for the corrector.
        func apply(
            to start: [Float], _ history: SamplerHistory, corrected: [Float]?,
            into result: UnsafeMutableBufferPointer<Float>
        ) {
            let newest = history.output(0)
            let others = ratios.indices.map { history.output($0 + 1) }
            for i in result.indices {
                var residual: Float = 0
                for k in ratios.indices { residual += rhos[k] * ((others[k][i] - newest[i]) / ratios[k]) }
                if let corrected { residual += rhos[rhos.count - 1] * (corrected[i] - newest[i]) }
                let linear = sample * start[i] + m0 * newest[i]
                // B(h) is infinite for bh1 at the step to pure x₀, which has no residual.
                result[i] = residual == 0 ? linear : linear + scale * residual
            }
        }
    }
}
