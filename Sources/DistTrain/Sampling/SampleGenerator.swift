import Foundation
import LDMModel
import TensorCore

// B samples of a batch, [H, W, C] a latent (or an image, in pixel space).

/// How samples are drawn.
public struct SamplingSettings: Sendable {
    public enum Method: String, Sendable, CaseIterable { case ddim, ddpm }
    public var method: Method
    /// Denoising steps.
    public var steps: Int
    /// 0: deterministic DDIM; 1: as much noise as DDPM.
    public var eta: Double
    /// In place of the scheduler's own `timestep_spacing`; nil leaves that.
    public var spacing: TimestepSpacing?
    /// Keys the initial noise: sample i of a seed is the same picture on any number of ranks.
    public var seed: UInt64
    /// Samples denoised at once on a rank.
    public var batchSize: Int

    public init(
        method: Method = .ddim, steps: Int = 50, eta: Double = 0, spacing: TimestepSpacing? = nil,
        seed: UInt64 = 0, batchSize: Int = 16
    ) {
        self.method = method
        self.steps = steps
        self.eta = eta
        self.spacing = spacing
        self.seed = seed
        self.batchSize = batchSize
    }
}

/// Draws latents (or pixels) from a U-Net, the ranks sharing the work.
public final class SampleGenerator {
    let denoiser: Denoiser
    let scheduler: SchedulerConfig
    let height: Int
    let width: Int
    let channels: Int

    public init(_ denoiser: Denoiser, scheduler: SchedulerConfig, height: Int, width: Int) {
        self.denoiser = denoiser
        self.scheduler = scheduler
        self.height = height
        self.width = width
        channels = denoiser.model.config.inChannels
    }

    /// Elements of a sample.
    public var sampleSize: Int { height * width * channels }

    /// Initial noise of samples `range`, [B, H, W, C], standard normal.
    public func initialNoise(_ range: Range<Int>, seed: UInt64) -> [Float] {
        var noise = [Float](repeating: 0, count: range.count * sampleSize)
        noise.withUnsafeMutableBufferPointer { buffer in
            for (b, sample) in range.enumerated() {
                var random = CounterRandom(seed: seed, purpose: .sampling, sample: UInt64(sample))
                random.fillNormal(
                    UnsafeMutableBufferPointer(rebasing: buffer[b * sampleSize..<(b + 1) * sampleSize]))
            }
        }
        return noise
    }

    /// Denoises samples `range`.
    ///
    /// - Parameters:
    ///   - initial: [B, H, W, C], or nil for the seed's own noise.
    ///   - progress: called after each denoising step of each batch with the number of sample-steps done.
    /// - Returns: [B, H, W, C]: scaled latents as the U-Net knows them, or pixels in [-1, 1].
    public func generate(
        _ range: Range<Int>, _ settings: SamplingSettings, initial: [Float]? = nil,
        progress: ((Int) throws -> Void)? = nil
    ) throws -> [Float] {
        let sampler = try makeSampler(settings)
        var result = initial ?? initialNoise(range, seed: settings.seed)
        precondition(result.count == range.count * sampleSize, "initial noise of \(result.count) values")
        for start in stride(from: 0, to: range.count, by: settings.batchSize) {
            let batch = start..<min(start + settings.batchSize, range.count)
            try result.withUnsafeMutableBufferPointer { buffer in
                let part = buffer[batch.lowerBound * sampleSize..<batch.upperBound * sampleSize]
                try denoise(
                    UnsafeMutableBufferPointer(rebasing: part), first: range.lowerBound + start, sampler,
                    settings, progress)
            }
        }
        return result
    }

    private func denoise(
        _ sample: UnsafeMutableBufferPointer<Float>, first: Int, _ sampler: any DiffusionSampler,
        _ settings: SamplingSettings, _ progress: ((Int) throws -> Void)?
    ) throws {
        let size = sampleSize
        let count = sample.count / size
        let predicted = UnsafeMutableBufferPointer<Float>.allocate(capacity: sample.count)
        defer { predicted.deallocate() }
        for (index, timestep) in sampler.timesteps.enumerated() {
            denoiser.predict(
                UnsafeBufferPointer(sample), height: height, width: width,
                timesteps: Array(repeating: Float(timestep), count: count), into: predicted)
            sampler.step(
                modelOutput: UnsafeBufferPointer(predicted), sample: sample, index: index
            ) { noise in
                for b in 0..<count {
                    var random = CounterRandom(
                        seed: settings.seed, purpose: .samplingNoise, step: UInt64(index),
                        sample: UInt64(first + b))
                    random.fillNormal(
                        UnsafeMutableBufferPointer(rebasing: noise[b * size..<(b + 1) * size]))
                }
            }
            try progress?(count)
        }
    }

    private func makeSampler(_ settings: SamplingSettings) throws -> any DiffusionSampler {
        var config = scheduler
        if let spacing = settings.spacing { config.timestepSpacing = spacing }
        let schedule = try NoiseSchedule(config)
        switch settings.method {
        case .ddim: return try DDIMSampler(schedule: schedule, steps: settings.steps, eta: settings.eta)
        case .ddpm: return try DDPMSampler(schedule: schedule, steps: settings.steps)
        }
    }
}
