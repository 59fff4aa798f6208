/// Fills a buffer with standard normal numbers. The caller derives them from seed, step and sample.
package typealias NoiseSource = (UnsafeMutableBufferPointer<Float>) -> Void

/// Transforms noise into a sample, with one model evaluation per step.
///
///     var history = SamplerHistory()
///     var sample = sampler.initialNoiseScale * noise
///     for (index, t) in sampler.timesteps.enumerated() {
///         let output = model(sampler.inputScale(at: index) * sample, t)
///         sampler.step(modelOutput: output, sample: &sample, index: index, history: &history, noise: …)
///     }
///
/// Samplers are values: what one step hands to the next is in a `SamplerHistory` for each batch. They work
/// elementwise, so a batch may be processed as a whole or sample by sample, and they may start at any index
/// that is a multiple of `evaluationsPerStep`, from a partly noised sample.
package protocol DiffusionSampler: Sendable {
    var schedule: NoiseSchedule { get }
    /// The timesteps of the model evaluations, noisiest first. Most are whole numbers in 0..<T; schedules of
    /// noise levels (Karras) lie between them.
    var timesteps: [Float] { get }
    /// ᾱ of the sample that the model is evaluated on at this index.
    func alphaBar(at index: Int) -> Float
    /// Standard deviation of the sample at index 0; diffusers' `init_noise_sigma`.
    var initialNoiseScale: Float { get }
    /// Factor of the sample at this index in the model's input; diffusers' `scale_model_input`.
    func inputScale(at index: Int) -> Float
    /// Model evaluations for each noise level: 2 for Heun's method, except for the last level.
    var evaluationsPerStep: Int { get }
    /// Whether the step at this index adds noise.
    func needsNoise(at index: Int) -> Bool
    /// Replaces `sample` (x_t) by the sample at the next, less noisy timestep.
    ///
    /// - Parameters:
    ///   - modelOutput: the model's output for x_t and `timesteps[index]`; as many elements as `sample`.
    ///   - sample: x_t, overwritten.
    ///   - index: the index of the step, from 0.
    ///   - history: of the steps before this one; new before the first step.
    ///   - noise: called once, for all elements, if `needsNoise(at: index)`; required in that case.
    func step(
        modelOutput: UnsafeBufferPointer<Float>, sample: UnsafeMutableBufferPointer<Float>, index: Int,
        history: inout SamplerHistory, noise: NoiseSource?)
}

/// What a sampler retains of the previous steps of a batch. Its meaning is the sampler's own.
package struct SamplerHistory: Sendable {
    /// Converted model outputs of the most recent steps, newest last.
    private(set) var outputs: [[Float]] = []
    /// The sample that a step started from.
    var start: [Float] = []
    /// The order of the last step.
    var order = 0

    package init() {}

    /// Appends an output, and retains the newest `limit` of them.
    mutating func append(_ output: [Float], keeping limit: Int) {
        outputs.append(output)
        if outputs.count > limit { outputs.removeFirst(outputs.count - limit) }
    }

    /// The output of `age` steps before the newest.
    func output(_ age: Int) -> [Float] { outputs[outputs.count - 1 - age] }
}

extension DiffusionSampler {
    package var initialNoiseScale: Float { 1 }
    package func inputScale(at index: Int) -> Float { 1 }
    package var evaluationsPerStep: Int { 1 }

    /// `step` for arrays, for tests and small samples.
    package func step(
        modelOutput: [Float], sample: inout [Float], index: Int, history: inout SamplerHistory,
        noise: NoiseSource? = nil
    ) {
        modelOutput.withUnsafeBufferPointer { output in
            sample.withUnsafeMutableBufferPointer {
                step(modelOutput: output, sample: $0, index: index, history: &history, noise: noise)
            }
        }
    }

    /// `step` for arrays and samplers that retain nothing.
    package func step(modelOutput: [Float], sample: inout [Float], index: Int, noise: NoiseSource? = nil) {
        var history = SamplerHistory()
        step(modelOutput: modelOutput, sample: &sample, index: index, history: &history, noise: noise)
    }

    /// The model's estimate of the clean sample x₀ at a step, clipped if the sampler clips it.
    ///
    /// - Parameters: see `step`; `sample` is x_t, before the step.
    package func cleanEstimate(
        modelOutput: UnsafeBufferPointer<Float>, sample: UnsafeBufferPointer<Float>, index: Int
    ) -> [Float] {
        let estimate = CleanEstimate(schedule, alphaBar: alphaBar(at: index))
        let scale = inputScale(at: index)
        return sample.indices.map { estimate.original(modelOutput[$0], scale * sample[$0]) }
    }
}

/// Derives the clean sample and the noise from x_t = √ᾱ x₀ + √(1-ᾱ) ε and the model's output.
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
        self.init(schedule.config, signal: alphaBar.squareRoot(), sigma: (1 - alphaBar).squareRoot())
    }

    init(_ config: SchedulerConfig, signal: Float, sigma: Float) {
        prediction = config.predictionType
        (self.signal, self.sigma) = (signal, sigma)
        clip = config.clipSample ? Float(config.clipSampleRange) : .infinity
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
