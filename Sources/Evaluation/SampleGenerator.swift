import Foundation
import LDMModel
import TensorCore

// B: samples of a batch, [H, W, C]: a latent (or an image, in pixel space).

/// Generates latents (or pixels) with a U-Net; the ranks share the work.
package final class SampleGenerator {
    let denoiser: Denoiser
    let scheduler: SchedulerConfig
    let height: Int
    let width: Int
    let channels: Int

    package init(_ denoiser: Denoiser, scheduler: SchedulerConfig, height: Int, width: Int) {
        (self.denoiser, self.scheduler) = (denoiser, scheduler)
        (self.height, self.width) = (height, width)
        channels = denoiser.model.config.inChannels
    }

    /// Number of elements of a sample.
    package var sampleSize: Int { height * width * channels }

    /// Initial noise of samples `range`, [B, H, W, C], standard normal.
    package func initialNoise(_ range: Range<Int>, seed: UInt64) -> [Float] {
        initialNoise(range, SamplingSettings(seed: seed))
    }

    /// Initial noise of samples `range`, [B, H, W, C], from the settings' seed or seeds.
    func initialNoise(_ range: Range<Int>, _ settings: SamplingSettings) -> [Float] {
        var noise = [Float](repeating: 0, count: range.count * sampleSize)
        noise.withUnsafeMutableBufferPointer { buffer in
            for (b, sample) in range.enumerated() {
                let key = settings.key(of: sample)
                var random = CounterRandom(seed: key.seed, purpose: .sampling, sample: key.sample)
                random.fillNormal(
                    UnsafeMutableBufferPointer(rebasing: buffer[b * sampleSize..<(b + 1) * sampleSize]))
            }
        }
        return noise
    }

    /// Denoises samples `range`.
    ///
    /// - Parameters:
    ///   - initial: [B, H, W, C], or nil for noise from the settings' seed or seeds.
    ///   - given: images to start from.
    ///   - observe: called during each denoising step of each batch.
    ///   - progress: called after each denoising step of each batch with the number of sample-steps
    ///     completed.
    /// - Returns: [B, H, W, C]: scaled latents as the U-Net uses them, or pixels in [-1, 1].
    package func generate(
        _ range: Range<Int>, _ settings: SamplingSettings, initial: [Float]? = nil,
        given: GivenSamples? = nil,
        observe: ((DenoisingMoment) -> Void)? = nil, progress: ((Int) throws -> Void)? = nil
    ) throws -> [Float] {
        if let given {
            return try edit(given, range, settings, initial ?? initialNoise(range, settings), progress)
        }
        let sampler = try settings.sampler(of: scheduler)
        var sample = initial ?? initialNoise(range, settings)
        let scale = sampler.initialNoiseScale
        if scale != 1 { for i in sample.indices { sample[i] *= scale } }
        return try run(range, sampler, settings, sample, observe, progress)
    }

    /// Model evaluations for each sample; see `DiffusionSampler.timesteps`.
    package func evaluations(_ settings: SamplingSettings) throws -> Int {
        try settings.sampler(of: scheduler).timesteps.count
    }

    /// The noise from which deterministic DDIM would generate the given samples; see `DDIMInversion`.
    ///
    /// - Parameter samples: [B, H, W, C], scaled latents or pixels in [-1, 1].
    /// - Returns: [B, H, W, C].
    package func invert(
        _ samples: [Float], _ settings: SamplingSettings, progress: ((Int) throws -> Void)? = nil
    ) throws -> [Float] {
        var settings = settings
        settings.method = .ddim
        let schedule = try NoiseSchedule(settings.scheduler(of: scheduler))
        return try run(
            0..<samples.count / sampleSize, try DDIMInversion(schedule: schedule, steps: settings.steps),
            settings, samples, nil, progress)
    }

    /// - Parameter start: the index of the sampler at which the samples are.
    func run(
        _ range: Range<Int>, _ sampler: any DiffusionSampler, _ settings: SamplingSettings,
        _ initial: [Float], from start: Int = 0, _ observe: ((DenoisingMoment) -> Void)?,
        _ progress: ((Int) throws -> Void)?
    ) throws -> [Float] {
        let classes = try denoiser.model.config.select(settings.classes)
        return try inBatches(range, settings, initial) { sample, batch in
            try denoise(
                sample, first: range.lowerBound + batch.lowerBound, sampler, from: start, classes, settings,
                observe, progress)
        }
    }

    /// Transforms samples `range` batch by batch; `body` receives the batch's samples, and its indices within
    /// the range.
    func inBatches(
        _ range: Range<Int>, _ settings: SamplingSettings, _ initial: [Float],
        _ body: (UnsafeMutableBufferPointer<Float>, Range<Int>) throws -> Void
    ) throws -> [Float] {
        var result = initial
        precondition(result.count == range.count * sampleSize, "initial noise of \(result.count) values")
        for start in stride(from: 0, to: range.count, by: settings.batchSize) {
            let batch = start..<min(start + settings.batchSize, range.count)
            try result.withUnsafeMutableBufferPointer { buffer in
                let part = buffer[batch.lowerBound * sampleSize..<batch.upperBound * sampleSize]
                try body(UnsafeMutableBufferPointer(rebasing: part), batch)
            }
        }
        return result
    }

    /// Fills a batch with the noise that a step adds, keyed by (seed, sample, step).
    ///
    /// - Parameter first: the index of the batch's first sample.
    func fillStepNoise(
        _ noise: UnsafeMutableBufferPointer<Float>, step: Int, first: Int, _ settings: SamplingSettings
    ) {
        let size = sampleSize
        for b in 0..<noise.count / size {
            let key = settings.key(of: first + b)
            var random = CounterRandom(
                seed: key.seed, purpose: .samplingNoise, step: UInt64(step), sample: key.sample)
            random.fillNormal(UnsafeMutableBufferPointer(rebasing: noise[b * size..<(b + 1) * size]))
        }
    }

    private func denoise(
        _ sample: UnsafeMutableBufferPointer<Float>, first: Int, _ sampler: any DiffusionSampler,
        from start: Int, _ classes: ClassSelection?, _ settings: SamplingSettings,
        _ observe: ((DenoisingMoment) -> Void)?,
        _ progress: ((Int) throws -> Void)?
    ) throws {
        let count = sample.count / sampleSize
        let predicted = UnsafeMutableBufferPointer<Float>.allocate(capacity: sample.count)
        let input = UnsafeMutableBufferPointer<Float>.allocate(capacity: sample.count)
        defer {
            predicted.deallocate()
            input.deallocate()
        }
        var history = SamplerHistory()
        for index in start..<sampler.timesteps.count {
            let scale = sampler.inputScale(at: index)
            for i in sample.indices { input[i] = scale * sample[i] }
            denoiser.predict(
                UnsafeBufferPointer(input), height: height, width: width,
                timesteps: Array(repeating: sampler.timesteps[index], count: count),
                condition: classes?.condition(of: first..<first + count), into: predicted)
            observe?(
                DenoisingMoment(
                    sampler: sampler, index: index, samples: first..<first + count,
                    sample: UnsafeBufferPointer(sample), noisy: UnsafeBufferPointer(input),
                    output: UnsafeBufferPointer(predicted)))
            sampler.step(
                modelOutput: UnsafeBufferPointer(predicted), sample: sample, index: index, history: &history
            ) { self.fillStepNoise($0, step: index, first: first, settings) }
            try progress?(count)
        }
    }
}

/// A denoising step in progress, of one batch. Valid only during the call that receives it.
package struct DenoisingMoment {
    let sampler: any DiffusionSampler
    /// Index of the model evaluation, from 0.
    package let index: Int
    /// Indices of the samples.
    package let samples: Range<Int>
    /// x_t before the step, as the sampler scales it.
    let sample: UnsafeBufferPointer<Float>
    /// x_t as the model's input, [B, H, W, C].
    package let noisy: UnsafeBufferPointer<Float>
    let output: UnsafeBufferPointer<Float>

    /// The model's estimate of x₀, [B, H, W, C].
    package var clean: [Float] {
        sampler.cleanEstimate(modelOutput: output, sample: sample, index: index)
    }
}
