import Communication
import TensorCore

/// The recorded forward and backward pass of a micro-batch, and the points at which it communicates.
final class MicroBatchTape {
    let tape: Tape
    let context: RunContext
    let objective: any RecordedObjective
    /// For each instruction, the gradient buckets that are complete after it.
    let completedBuckets: [[Int]]
    /// For each instruction, the ranges of `ForwardOrder` that it reads first.
    let firstUses: [[Int]]
    /// For each instruction, how many pieces of the parameter all-gather must have arrived before it.
    let neededPieces: [Int]

    /// - Parameter batch: samples of the micro-batch.
    init(
        _ objective: any Objective, batch: Int, settings: TrainingStep.Settings, buckets: [Range<Int>],
        state: ModelState, arena: Arena
    ) {
        tape = Tape(
            dtype: state.settings.dtype, backend: settings.backend, recordsGradients: true, arena: arena)
        self.objective = objective.record(on: tape, batch: batch, globalBatch: settings.batchSize)
        let store = objective.store
        completedBuckets = GradientBuckets.starts(buckets, store: store, tape: tape)
        firstUses = ForwardOrder.uses(of: ForwardOrder.ranges(of: store), store: store, tape: tape)
        tape.plan()
        neededPieces = state.gather?.needs(firstUses) ?? []
        context = RunContext(seed: settings.seed, batch: batch)
    }
}
