import FileFormats

/// Fills a buffer with standard normal numbers. The caller derives them from seed, step and sample.
package typealias NoiseSource = (UnsafeMutableBufferPointer<Float>) -> Void

/// Transforms noise into a sample, with one model evaluation per step.
///
///     var sample = noise
///     for (index, t) in sampler.timesteps.enumerated() {
///         let output = model(sample, t)
///         sampler.step(modelOutput: output, sample: sample, index: index, noise: …)
///     }
///
/// Samplers are stateless and work elementwise, so a batch may be processed as a whole or sample by sample.
package protocol DiffusionSampler: Sendable {
    var schedule: NoiseSchedule { get }
    /// The training timesteps to evaluate the model at, noisiest first.
    var timesteps: [Int] { get }
    /// Whether the step at this index adds noise.
    func needsNoise(at index: Int) -> Bool
    /// Replaces `sample` (x_t) by the sample at the next, less noisy timestep.
    ///
    /// - Parameters:
    ///   - modelOutput: the model's output for x_t and `timesteps[index]`; as many elements as `sample`.
    ///   - sample: x_t, overwritten.
    ///   - index: the index of the step, from 0.
    ///   - noise: called once, for all elements, if `needsNoise(at: index)`; required in that case.
    func step(
        modelOutput: UnsafeBufferPointer<Float>, sample: UnsafeMutableBufferPointer<Float>, index: Int,
        noise: NoiseSource?)
}

extension DiffusionSampler {
    /// `step` for arrays, for tests and small samples.
    package func step(modelOutput: [Float], sample: inout [Float], index: Int, noise: NoiseSource? = nil) {
        modelOutput.withUnsafeBufferPointer { output in
            sample.withUnsafeMutableBufferPointer {
                step(modelOutput: output, sample: $0, index: index, noise: noise)
            }
        }
    }
}

extension DiffusionSampler {
    /// The model's estimate of the clean sample x₀ at a step, clipped if the sampler clips it.
    ///
    /// - Parameters: see `step`; `sample` is x_t, before the step.
    package func cleanEstimate(
        modelOutput: UnsafeBufferPointer<Float>, sample: UnsafeBufferPointer<Float>, index: Int
    ) -> [Float] {
        let estimate = CleanEstimate(schedule, timestep: timesteps[index])
        return sample.indices.map { estimate.original(modelOutput[$0], sample[$0]) }
    }
}

/// Derives the clean sample and the noise from x_t and the model's output, at one timestep.
struct CleanEstimate {
    let prediction: PredictionType
    /// √ᾱ_t and √(1-ᾱ_t).
    let signal: Float
    let sigma: Float
    /// Bound on |x₀|; infinite if x₀ is not clipped.
    let clip: Float

    init(_ schedule: NoiseSchedule, timestep: Int) {
        self.init(schedule, alphaBar: schedule.alphasCumprod[timestep])
    }

    init(_ schedule: NoiseSchedule, alphaBar: Float) {
        prediction = schedule.config.predictionType
        signal = alphaBar.squareRoot()
        sigma = (1 - alphaBar).squareRoot()
        clip = schedule.config.clipSample ? Float(schedule.config.clipSampleRange) : .infinity
    }

    /// x₀, clipped.
    @inline(__always)
    func original(_ output: Float, _ x: Float) -> Float {
        let original: Float
        switch prediction {
        case .epsilon: original = (x - sigma * output) / signal
        case .velocity: original = signal * x - sigma * output
        case .sample: original = output
        }
        // This argument order propagates NaN, so that a broken model is detected.
        return max(min(original, clip), -clip)
    }

    /// ε, from the unclipped prediction as in diffusers.
    @inline(__always)
    func epsilon(_ output: Float, _ x: Float) -> Float {
        switch prediction {
        case .epsilon: return output
        case .velocity: return signal * output + sigma * x
        case .sample: return (x - signal * output) / sigma
        }
    }
}

/// The samplers, as `--method` and `sampling.sampler` name them.
package enum SamplerKind: String, ConfigChoice {
    case ddim, ddpm

    package func make(_ schedule: NoiseSchedule, steps: Int, eta: Double) throws(ConfigError)
        -> any DiffusionSampler
    {
        switch self {
        case .ddim: try DDIMSampler(schedule: schedule, steps: steps, eta: eta)
        case .ddpm: try DDPMSampler(schedule: schedule, steps: steps)
        }
    }

    /// The class in the scheduler_config.json of a model that is sampled with it.
    package var schedulerClass: SchedulerClass {
        switch self {
        case .ddim: .ddim
        case .ddpm: .ddpm
        }
    }
}

/// Settings for drawing samples.
package struct SamplingSettings: Sendable {
    package var method: SamplerKind
    /// Denoising steps.
    package var steps: Int
    /// η of DDIM: 0 is deterministic, 1 adds as much noise as DDPM.
    package var eta: Double
    /// Overrides the scheduler's `timestep_spacing` unless nil.
    package var spacing: TimestepSpacing?
    /// Seed of the initial noise: sample i of a seed is the same image on any number of ranks.
    package var seed: UInt64
    /// One seed per sample instead of `seed`: each sample is then the first sample of its seed.
    package var seeds: [UInt64]?
    /// Samples per denoising batch on a rank.
    package var batchSize: Int
    /// Overrides the scheduler's `clip_sample` unless nil.
    package var clips: Bool?
    /// Classes and guidance of a class-conditional model.
    package var classes = ClassRequest()

    package init(
        method: SamplerKind = .ddim, steps: Int = 50, eta: Double = 0, spacing: TimestepSpacing? = nil,
        seed: UInt64 = 0, seeds: [UInt64]? = nil, batchSize: Int = 16, clips: Bool? = nil
    ) {
        (self.seeds, self.clips, self.method, self.steps) = (seeds, clips, method, steps)
        (self.eta, self.spacing, self.seed, self.batchSize) = (eta, spacing, seed, batchSize)
    }

    /// The key of a sample's noise: seed and sample number.
    package func key(of sample: Int) -> (seed: UInt64, sample: UInt64) {
        seeds.map { ($0[sample], 0) } ?? (seed, UInt64(sample))
    }
}
