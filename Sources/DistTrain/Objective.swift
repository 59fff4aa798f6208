import Datasets
import TensorCore

/// One sample of a global batch: which it is, and the key that everything random about it is drawn from.
package struct BatchItem: Sendable {
    /// Index in the dataset.
    package let index: Int
    /// Seed, training step, and place in the global batch.
    package let key: SampleKey
}

/// What is trained: a model with a loss. Knows nothing of ranks; the data-parallel step wraps it.
package protocol Objective: AnyObject {
    /// The trained parameters.
    var store: ParameterStore { get }
    /// Samples in the dataset.
    var sampleCount: Int { get }
    /// Records forward pass, loss and backward pass for `batch` samples.
    ///
    /// - Parameter globalBatch: samples of the whole step; the loss is a mean over them, so that gradients of
    ///   micro-batches and ranks only need to be summed.
    func record(on tape: Tape, batch: Int, globalBatch: Int) -> any RecordedObjective
}

/// An objective on a tape, ready to be fed and run.
package protocol RecordedObjective: AnyObject {
    /// Fills the tape's inputs for these samples. Throws where data cannot be read.
    func load(_ items: [BatchItem]) throws
    /// This micro-batch's share of the global mean loss, after a run; its parts by name follow.
    var loss: Double { get }
    var parts: [(name: String, value: Double)] { get }
}

extension SampleKey {
    /// The sample's own stream of numbers for a purpose.
    func random(_ purpose: CounterRandom.Purpose) -> CounterRandom {
        CounterRandom(seed: seed, purpose: purpose, step: step, sample: sample)
    }
}
