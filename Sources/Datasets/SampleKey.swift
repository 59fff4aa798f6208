import TensorCore

/// The key of all random draws for one training sample. It does not depend on the rank or the number of
/// ranks.
package struct SampleKey: Sendable, Equatable {
    /// The run's seed.
    package var seed: UInt64
    /// The training step.
    package var step: UInt64
    /// The sample's index in the step's global batch.
    package var sample: UInt64

    package init(seed: UInt64, step: UInt64, sample: UInt64) {
        self.seed = seed
        self.step = step
        self.sample = sample
    }

    /// Whether the sample is mirrored if flipping is enabled; true with probability 1/2.
    package var isFlipped: Bool {
        var random = CounterRandom(seed: seed, purpose: .flip, step: step, sample: sample)
        return random.next() >> 31 == 1
    }

    /// The noise for the posterior sample z = mean + exp(logvar / 2)·noise.
    var posteriorNoise: CounterRandom {
        CounterRandom(seed: seed, purpose: .posterior, step: step, sample: sample)
    }
}
