/// How samples are drawn.
package struct SamplingSettings: Sendable {
    package enum Method: String, Sendable, CaseIterable { case ddim, ddpm }
    package var method: Method
    /// Denoising steps.
    package var steps: Int
    /// 0: deterministic DDIM; 1: as much noise as DDPM.
    package var eta: Double
    /// In place of the scheduler's own `timestep_spacing`; nil leaves that.
    package var spacing: TimestepSpacing?
    /// Keys the initial noise: sample i of a seed is the same picture on any number of ranks.
    package var seed: UInt64
    /// A seed for each sample in place of `seed`: each is then the first sample of its seed.
    package var seeds: [UInt64]?
    /// Samples denoised at once on a rank.
    package var batchSize: Int
    /// In place of the scheduler's own `clip_sample`; nil leaves that.
    package var clips: Bool?

    package init(
        method: Method = .ddim, steps: Int = 50, eta: Double = 0, spacing: TimestepSpacing? = nil,
        seed: UInt64 = 0, seeds: [UInt64]? = nil, batchSize: Int = 16, clips: Bool? = nil
    ) {
        self.seeds = seeds
        self.clips = clips
        self.method = method
        self.steps = steps
        self.eta = eta
        self.spacing = spacing
        self.seed = seed
        self.batchSize = batchSize
    }

    /// What the noise of a sample is keyed by.
    package func key(of sample: Int) -> (seed: UInt64, sample: UInt64) {
        seeds.map { ($0[sample], 0) } ?? (seed, UInt64(sample))
    }
}
