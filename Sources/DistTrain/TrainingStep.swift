import CKernels
import Communication
import Datasets
import Foundation
import Records
import TensorCore

/// One data-parallel training step: forward, loss and backward for this rank's share of the global batch, reduction
/// of the gradients, update of this rank's shard of the training state.
///
/// The global batch is divided into one share per rank, and a share into micro-batches. The reduction of a gradient
/// bucket starts as soon as the backward pass of the last micro-batch has completed it. On several hosts, the
/// all-gather of updated weights overlaps with the next forward pass (`ParameterAllGather`). A step allocates no
/// memory for tensors.
package final class TrainingStep {
    package struct Settings: Sendable {
        package var seed: UInt64
        package var batchSize: Int
        /// Number of samples per micro-batch; nil: the whole share.
        package var microBatchSize: Int?
        package var backend: Backend
        /// Global gradient norm above which gradients are scaled down; nil: never.
        package var clipNorm: Float?
        /// Type of gradients in messages between ranks; sums are fp32.
        package var reduceDType: DType

        package init(
            seed: UInt64, batchSize: Int, microBatchSize: Int?, backend: Backend = .fastest, clipNorm: Float?,
            reduceDType: DType = .float32
        ) {
            (self.reduceDType, self.seed, self.batchSize) = (reduceDType, seed, batchSize)
            (self.microBatchSize, self.backend, self.clipNorm) = (microBatchSize, backend, clipNorm)
        }
    }

    package let settings: Settings
    package let objective: any Objective
    package let state: ModelState
    package let learningRate: LearningRate
    package let communicator: Communicator

    /// This rank's share of the global batch, as positions in it.
    package let share: Range<Int>
    private let microBatches: [Range<Int>]
    /// By number of samples.
    private var tapes: [Int: MicroBatchTape] = [:]
    private let arena = Arena()
    private let buckets: [Range<Int>]
    private let reducer: BucketReducer
    private let order: DataOrder
    private var cursor = DataCursor()
    private var items: [BatchItem] = []
    /// The reason why this rank could not read its share of the data.
    private var dataFailure: (any Error)?
    private let clock: StepClock

    /// Receives the time span of each kernel and phase when it ends, for traces.
    package var observer: ((TraceSpan) -> Void)? {
        didSet {
            clock.observer = observer
            for tape in tapes.values { observe(tape.tape) }
        }
    }
    /// Called when a gradient bucket is complete.
    package var bucketObserver: ((Int) -> Void)?
    /// Called when the pass first reads a range of `ForwardOrder`.
    package var useObserver: ((Int) -> Void)?

    package init(
        _ settings: Settings, objective: any Objective, state: ModelState, learningRate: LearningRate,
        communicator: Communicator, activity: RankActivity = RankActivity()
    ) {
        (self.settings, self.objective, self.state) = (settings, objective, state)
        (self.learningRate, self.communicator) = (learningRate, communicator)
        clock = StepClock(activity)
        order = DataOrder(count: objective.sampleCount, seed: settings.seed)
        share = settings.share(of: communicator.rank, of: communicator.size)
        microBatches = settings.microBatches(of: share)
        buckets = GradientBuckets.ranges(of: objective.store)
        reducer = BucketReducer(
            communicator: communicator, gradients: objective.store.gradients, buckets: buckets,
            slices: state.slices, sharding: state.settings.sharding, reduceDType: settings.reduceDType)
        for samples in microBatches { _ = tape(samples.count) }
    }

    // MARK: The algorithm

    /// Trains on the global batch of step `step`, counted from 0. Collective.
    ///
    /// - Parameters:
    ///   - votes: this rank's flags, whose sums over the ranks are in the result.
    ///   - blocks: parts of the model whose gradient norms are returned; the same on every rank.
    /// - Throws: `NumericalFault` on every rank if the loss or the gradients are not finite on any rank; a data or
    ///   communication error.
    package func callAsFunction(
        _ step: Int, votes: StepVotes = StepVotes(), blocks: GradientBlocks? = nil
    ) throws -> StepResult {
        clock.begin()

        // Forward, loss and backward. The reduction of gradient buckets overlaps with the last backward pass.
        var loss = 0.0
        var parts: [LossPart] = []
        for (index, samples) in microBatches.enumerated() {
            let tape = tape(samples.count)
            clock.measure(.data, step: step) { load(samples, step: step, into: tape) }
            clock.measure(.compute) {
                run(tape, accumulates: index > 0, reduces: index == microBatches.count - 1)
            }
            loss += tape.objective.loss
            parts = parts.isEmpty ? tape.objective.parts : Self.sum(parts, tape.objective.parts)
        }

        // Finish the parameter all-gather first: a rank waiting for weights that this rank must forward would never
        // send its gradients.
        try clock.measure(.gather) { () throws(CommunicationError) in try state.completeWeights() }
        let gradients = try clock.measure(.reduce) { () throws(CommunicationError) in try reducer.finish() }

        // After one all-reduce, all ranks have the same loss and norm and make the same decision before any update.
        let sums = try clock.measure(.agree) { () throws(CommunicationError) in
            let own = state.slices[communicator.rank]
            var sums = StepSums(
                gradientSquares: ck_sum_of_squares(own.count, objective.store.gradients + own.lowerBound),
                loss: loss, failedReads: dataFailure == nil ? 0 : 1, votes: votes, parts: parts,
                blockSquares: blocks?.squares(of: objective.store.gradients, in: own) ?? [])
            try sums.reduce(communicator)
            return sums
        }
        if sums.failedReads > 0 { try throwDataFailure(step) }
        let norm = sums.gradientSquares.squareRoot()
        guard sums.loss.isFinite, norm.isFinite else {
            throw NumericalFault(step: step, loss: sums.loss, gradientNorm: norm)
        }

        // Clip, update this rank's shard, update the averages, publish the new weights.
        let rate = learningRate(step: step)
        let scale = settings.clipNorm.map { min(1, $0 / (Float(norm) + 1e-6)) } ?? 1
        try clock.measure(.update) { () throws(CommunicationError) in
            try state.update(step, learningRate: rate, gradientScale: scale)
        }
        return StepResult(
            loss: sums.loss, parts: sums.parts, gradientNorm: norm, learningRate: rate,
            blockNorms: blocks?.norms(squares: sums.blockSquares) ?? [], votes: sums.votes,
            times: clock.finish(
                gradients: (gradients.waitSeconds, gradients.busySeconds),
                weights: state.gather?.takeSeconds() ?? (0, 0)))
    }

    /// Returns when kernels may read all weights and no message is in flight. Required after the last step, and
    /// before anything else reads the weights between steps. Collective.
    package func completeWeights() throws(CommunicationError) { try state.completeWeights() }

    /// Runs forward and backward of a micro-batch. Before each instruction, waits for the weights that it reads; after
    /// each, passes completed gradient buckets to the reducer.
    private func run(_ batch: MicroBatchTape, accumulates: Bool, reduces: Bool) {
        batch.context.accumulatesGradients = accumulates
        let gather = state.gather
        let awaitsWeights = gather != nil || useObserver != nil
        batch.tape.run(
            batch.context,
            after: reduces
                ? { [self] instruction in
                    for bucket in batch.completedBuckets[instruction] {
                        reducer.bucketReady(bucket)
                        bucketObserver?(bucket)
                    }
                    reducer.progress()
                } : nil,
            before: awaitsWeights
                ? { [self] instruction in
                    if let gather {
                        gather.progress()
                        let needed = batch.neededPieces[instruction]
                        if gather.lacks(needed) {
                            clock.interrupt(.compute, by: .gather) { gather.wait(for: needed) }
                        }
                    }
                    if let useObserver { batch.firstUses[instruction].forEach(useObserver) }
                } : nil)
    }

    private func tape(_ batch: Int) -> MicroBatchTape {
        if let recorded = tapes[batch] { return recorded }
        let recorded = MicroBatchTape(
            objective, batch: batch, settings: settings, buckets: buckets, state: state, arena: arena)
        observe(recorded.tape)
        tapes[batch] = recorded
        return recorded
    }

    private static func sum(_ a: [LossPart], _ b: [LossPart]) -> [LossPart] {
        zip(a, b).map { ($0.name, $0.value + $1.value) }
    }

    // MARK: Data

    /// Continues the data order from `samplesSeen` at `step`, even if the batch size has changed.
    package func resume(at step: Int, samplesSeen: Int) {
        cursor = DataCursor(step: step, samplesSeen: samplesSeen)
    }

    /// The number of samples used by the first `steps` updates: the position in the data order.
    package func samplesSeen(after steps: Int) -> Int {
        cursor.samplesSeen + (steps - cursor.step) * settings.batchSize
    }

    /// Reads this rank's samples. A failure is stored until the all-reduce of the step: if this rank threw here, the
    /// others would wait for its gradients forever.
    private func load(_ samples: Range<Int>, step: Int, into batch: MicroBatchTape) {
        items.removeAll(keepingCapacity: true)
        for sample in samples {
            let index = order.index(at: samplesSeen(after: step) + sample)
            let key = SampleKey(seed: settings.seed, step: UInt64(step), sample: UInt64(sample))
            items.append(BatchItem(index: index, key: key))
        }
        batch.context.step = UInt64(step)
        for (b, sample) in samples.enumerated() { batch.context.samples[b] = Int64(sample) }
        do {
            try batch.objective.load(items)
        } catch {
            dataFailure = dataFailure ?? error
        }
    }

    /// Throws on every rank if reading has failed on any.
    private func throwDataFailure(_ step: Int) throws {
        defer { dataFailure = nil }
        try communicator.collectively("reading the data of step \(step)") {
            if let dataFailure { throw dataFailure }
        }
    }

    // MARK: Measurements

    /// The profile of this rank's kernels by kind of work, since the last call.
    package func takeProfile() -> [WorkProfile] { tapes.values.map(\.tape).takeProfile() }

    private func observe(_ tape: Tape) {
        guard let observer else { return tape.observer = nil }
        tape.observer = { observer(TraceSpan($0)) }
    }

    /// Floating-point operations of a step per sample, forward and backward, as `Tape.flops` counts them.
    package var flopsPerSample: Double {
        guard let (batch, recorded) = tapes.max(by: { $0.key < $1.key }), batch > 0 else { return 0 }
        return Double(recorded.tape.flops) / Double(batch)
    }

    /// Bytes of activations and scratch memory.
    package var activationBytes: Int { arena.byteCount }
}

/// A position in the data order: the number of samples used by the first `step` updates.
private struct DataCursor {
    var step = 0
    var samplesSeen = 0
}

extension TrainingStep.Settings {
    /// The positions of the global batch that a rank trains on; shares differ by at most one sample.
    func share(of rank: Int, of ranks: Int) -> Range<Int> {
        batchSize * rank / ranks..<batchSize * (rank + 1) / ranks
    }

    func microBatches(of share: Range<Int>) -> [Range<Int>] {
        let size = max(1, microBatchSize ?? share.count)
        return stride(from: share.lowerBound, to: share.upperBound, by: size).map {
            $0..<min($0 + size, share.upperBound)
        }
    }
}

/// The sums over the ranks that a step needs, computed in one all-reduce.
private struct StepSums {
    var gradientSquares: Double
    var loss: Double
    /// Ranks that could not read their data.
    var failedReads: Double
    var votes: StepVotes
    var parts: [LossPart]
    var blockSquares: [Double]

    mutating func reduce(_ communicator: Communicator) throws(CommunicationError) {
        var values =
            [gradientSquares, loss, failedReads, votes.saving, votes.stopping] + parts.map(\.value)
            + blockSquares
        try communicator.allReduceSum(&values)
        (gradientSquares, loss, failedReads) = (values[0], values[1], values[2])
        votes = StepVotes(saving: values[3], stopping: values[4])
        for index in parts.indices { parts[index].value = values[5 + index] }
        blockSquares = Array(values.suffix(blockSquares.count))
    }
}
