/// Settings for drawing samples.
package struct SamplingSettings: Sendable {
    package enum Method: String, Sendable, CaseIterable { case ddim, ddpm }
    package var method: Method
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

    /// The key of a sample's noise: seed and sample number.
    package func key(of sample: Int) -> (seed: UInt64, sample: UInt64) {
        seeds.map { ($0[sample], 0) } ?? (seed, UInt64(sample))
    }
}
