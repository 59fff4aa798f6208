import TensorCore

/// What the random draws of one training sample depend on, and nothing else: no rank, no number of ranks.
package struct SampleKey: Sendable, Equatable {
    /// The run's seed.
    package var seed: UInt64
    /// The training step.
    package var step: UInt64
    /// The sample's place in the step's global batch.
    package var sample: UInt64

    package init(seed: UInt64, step: UInt64, sample: UInt64) {
        self.seed = seed
        self.step = step
        self.sample = sample
    }

    /// Whether the sample is mirrored, where the run flips: one fair coin.
    package var isFlipped: Bool {
        var random = CounterRandom(seed: seed, purpose: .flip, step: step, sample: sample)
        return random.next() >> 31 == 1
    }

    /// The noise of the posterior sample z = mean + exp(logvar / 2)·noise.
    var posteriorNoise: CounterRandom {
        CounterRandom(seed: seed, purpose: .posterior, step: step, sample: sample)
    }
}
