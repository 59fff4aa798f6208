import Checkpointing
import Datasets
import Imaging
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

/// What a run trains: an objective, and what becomes of its weights. The rest of a run is the same for all tasks.
protocol TrainingTask: AnyObject {
    var objective: any Objective { get }
    var identity: RunIdentity { get }
    /// The folder of the weights that the run started from; nil for random ones.
    var initializedFrom: String? { get }
    /// Evaluates the model within the run; nil where the configuration asks for none.
    var evaluation: TrainingEvaluation? { get }

    /// Images of the model's work with the weights that are in the store, on rank 0; nil elsewhere. Collective.
    ///
    /// - Parameter tick: called as the work proceeds.
    func sampleImages(tick: @escaping () -> Void) throws -> Image?

    /// Writes the finished model as other programs open it. On rank 0.
    ///
    /// - Parameter values: the weights in fp32 and in the store's layout. The kernels read them too.
    func export(to folder: String, values: UnsafePointer<Float>) throws
}
