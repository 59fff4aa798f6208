import FileFormats

/// Inpainting with any unconditional model: denoises the repainted part of an image, and replaces the rest by
/// the original with noise of the same level after every step.
///
/// To make both parts consistent, the sample is repeatedly noised again by several steps and denoised again
/// ("resampling"). Noise positions count from 0, the cleanest, as in the paper.
///
/// Source: Lugmayr et al. 2022 (arXiv 2201.09865), algorithm 1 and appendix B; the order of steps is that of
/// diffusers' `RePaintScheduler`. Noise is added exactly between visited timesteps, for which diffusers takes
/// single training steps nearby; both are the same if all timesteps are visited.
package struct RePaint: Sendable {
    /// A step of the sample between two noise positions.
    package enum Move: Sendable, Equatable {
        /// From this index of the sampler to the next one, with the model.
        case denoise(Int)
        /// Back, from the next index to this one, with noise.
        case renoise(Int)
    }

    private let sampler: DDIMSampler
    package let moves: [Move]

    /// - Parameters:
    ///   - sampler: with η = 1, as in the paper; η = 0 in diffusers' pipeline.
    ///   - first: the index to start from.
    ///   - jumpLength: steps of a jump back, j in the paper.
    ///   - resampling: how often the steps of a jump are denoised in total, r in the paper.
    package init(_ sampler: DDIMSampler, first: Int = 0, jumpLength: Int = 10, resampling: Int = 10) {
        precondition(jumpLength > 0 && resampling > 0, "a jump has at least one step")
        self.sampler = sampler
        let count = sampler.timesteps.count
        func index(_ position: Int) -> Int { count - 1 - position }
        var jumps: [Int: Int] = [:]
        for position in stride(from: 0, to: count - first - jumpLength, by: jumpLength) {
            jumps[position] = resampling - 1
        }
        var moves: [Move] = []
        var position = count - first
        while position > 0 {
            position -= 1
            moves.append(.denoise(index(position)))
            if let left = jumps[position], left > 0 {
                jumps[position] = left - 1
                for _ in 0..<jumpLength {
                    moves.append(.renoise(index(position)))
                    position += 1
                }
            }
        }
        self.moves = moves
    }

    /// Number of model evaluations.
    package var evaluations: Int {
        moves.count {
            if case .denoise = $0 { true } else { false }
        }
    }

    /// Denoises the sample, and replaces its known part.
    ///
    /// - Parameters:
    ///   - modelOutput: for `sample` and the sampler's timestep at `index`.
    ///   - known: the clean original, as many elements as `sample`.
    ///   - isRepainted: for each element, whether it is not known.
    ///   - noise: standard normal numbers, as many elements as `sample`.
    package func denoise(
        modelOutput: UnsafeBufferPointer<Float>, sample: UnsafeMutableBufferPointer<Float>, index: Int,
        known: UnsafeBufferPointer<Float>, isRepainted: (Int) -> Bool, noise: UnsafeBufferPointer<Float>
    ) {
        var history = SamplerHistory()
        sampler.step(modelOutput: modelOutput, sample: sample, index: index, history: &history) {
            _ = $0.update(from: noise)
        }
        // The result's known part is the original itself, whatever ᾱ before the first timestep is.
        let isLast = index == sampler.timesteps.count - 1
        let alphaBar = isLast ? 1 : sampler.alphaBarAfter(index)
        let (signal, sigma) = (alphaBar.squareRoot(), (1 - alphaBar).squareRoot())
        for i in sample.indices where !isRepainted(i) { sample[i] = signal * known[i] + sigma * noise[i] }
    }

    /// Adds the noise that the step at `index` removes: x_t = √(ᾱ_t/ᾱ_prev) x_prev + √(1 - ᾱ_t/ᾱ_prev) z.
    package func renoise(
        _ sample: UnsafeMutableBufferPointer<Float>, index: Int, noise: UnsafeBufferPointer<Float>
    ) {
        let alpha = sampler.alphaBar(at: index) / sampler.alphaBarAfter(index)
        let (signal, sigma) = (alpha.squareRoot(), (1 - alpha).squareRoot())
        for i in sample.indices { sample[i] = signal * sample[i] + sigma * noise[i] }
    }
}

extension DiffusionSampler {
    /// The index from which a sample denoises an image with noise of this strength: the last ⌊strength · n⌋ of
    /// n steps follow, as in diffusers' image-to-image pipelines. nil if none would.
    ///
    /// - Parameter strength: in 0...1.
    package func firstIndex(strength: Double) -> Int? {
        let steps = (timesteps.count + evaluationsPerStep - 1) / evaluationsPerStep
        let used = min(steps, Int(Double(steps) * strength))
        return used > 0 ? (steps - used) * evaluationsPerStep : nil
    }

    /// The sample at an index of a clean one and standard normal noise, elementwise; `sample` holds the noise
    /// before.
    package func addNoise(
        _ sample: UnsafeMutableBufferPointer<Float>, to clean: UnsafeBufferPointer<Float>, index: Int
    ) {
        precondition(clean.count == sample.count, "noise and sample differ in length")
        let alphaBar = alphaBar(at: index)
        let scale = inputScale(at: index)
        let (signal, sigma) = (alphaBar.squareRoot() / scale, (1 - alphaBar).squareRoot() / scale)
        for i in sample.indices { sample[i] = signal * clean[i] + sigma * sample[i] }
    }
}
