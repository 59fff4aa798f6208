import Checkpointing
import Datasets
import Imaging
import Records
import TensorCore

/// One sample of a global batch: its index, and the key from which its random numbers are derived.
package struct BatchItem: Sendable {
    /// Index in the dataset.
    package let index: Int
    /// Seed, training step, and position in the global batch.
    package let key: SampleKey

    package init(index: Int, key: SampleKey) { (self.index, self.key) = (index, key) }
}

/// A model with a loss to train. Independent of ranks; the data-parallel step wraps it.
package protocol Objective: AnyObject {
    /// The trained parameters.
    var store: ParameterStore { get }
    /// Number of samples in the dataset.
    var sampleCount: Int { get }
    /// Records forward pass, loss and backward pass for `batch` samples.
    ///
    /// - Parameter globalBatch: number of samples in the whole step; the loss is a mean over them, so that the
    ///   gradients of micro-batches and ranks only need to be summed.
    func record(on tape: Tape, batch: Int, globalBatch: Int) -> any RecordedObjective
}

/// An objective recorded on a tape, ready for input and execution.
package protocol RecordedObjective: AnyObject {
    /// Fills the tape's inputs for these samples. Throws if data cannot be read.
    func load(_ items: [BatchItem]) throws
    /// This micro-batch's contribution to the global mean loss, after a run; its named terms follow.
    var loss: Double { get }
    var parts: [(name: String, value: Double)] { get }
}

extension SampleKey {
    /// The sample's random stream for a purpose.
    func random(_ purpose: CounterRandom.Purpose) -> CounterRandom {
        CounterRandom(seed: seed, purpose: purpose, step: step, sample: sample)
    }
}

/// The task of a run: an objective, its evaluation and its results. The rest of a run is the same for all tasks.
package protocol TrainingTask: AnyObject {
    var objective: any Objective { get }
    var identity: RunIdentity { get }
    /// The folder of the initial weights; nil for random ones.
    var initializedFrom: String? { get }
    /// Evaluates the model during the run; nil if the configuration does not enable it.
    var evaluation: TrainingEvaluation? { get }

    /// The model and its data, for the first line of the log.
    var summary: String { get }
    /// The results of a finished run, for the last line of the log.
    func results(in folder: RunFolder) -> String

    /// Images generated with the weights in the store, on rank 0; nil elsewhere. Collective.
    ///
    /// - Parameter activity: notes that the work proceeds.
    func sampleImages(_ activity: RankActivity) throws -> Image?

    /// Writes the finished model in the format of diffusers. Called on rank 0.
    ///
    /// - Parameter values: the weights in fp32, in the layout of the store. The kernels read them too.
    func export(to folder: String, values: UnsafePointer<Float>) throws
}
