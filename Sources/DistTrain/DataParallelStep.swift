import CKernels
import Communication
import Datasets
import Foundation
import Records
import Support
import TensorCore

/// What one training step came to; the same on every rank.
package struct StepResult: Sendable {
    package var loss: Double
    /// The loss's parts by name, where it has any.
    package var parts: [(name: String, value: Double)]
    /// Norm of the global gradient, before clipping.
    package var gradientNorm: Double
    package var learningRate: Float
    /// This rank's seconds.
    package var dataSeconds: Double
    package var computeSeconds: Double
    /// Waiting for weights and gradients that computing did not hide; and of that, for weights.
    package var communicationSeconds: Double
    package var gatherSeconds: Double
    package var totalSeconds: Double
    /// All seconds inside MPI for weights and gradients, those of waiting included.
    package var messageSeconds: Double
    /// Gradient norm, agreement, AdamW and averages, and on one machine gathering the weights; part of `computeSeconds`.
    package var optimizerSeconds: Double
    /// The sums over the ranks of what each gave the step to take along.
    package var riding: [Double]
    /// Norm of each block's global gradient, before clipping, where it was asked for.
    package var blockNorms: [(name: String, value: Double)]
}

/// Training stopped by a numerical fault; no parameter was changed by the step that met it.
package struct NumericalFault: ReportableError {
    package let step: Int
    package let loss: Double
    package let gradientNorm: Double
    package var exitStatus: Int32 { ExitStatus.numericalFault }
    package var message: String {
        "step \(step): loss is \(loss), gradient norm is \(gradientNorm): expected finite numbers; the weights are "
            + "those of step \(step), as before; resume from the last checkpoint with a lower "
            + "optimizer.learning_rate or clip_norm, or train.precision: fp32"
    }
}

/// A place in the data order: the samples that went into the first `step` updates.
struct DataCursor {
    package var step = 0
    package var samplesSeen = 0
}

/// One data-parallel training step.
///
/// The global batch is cut into the ranks' shares, a share into micro-batches. As the last micro-batch's backward
/// pass finishes a bucket of gradients, its reduction starts; it goes on while the rest is computed. On several machines
/// the weights that the update changes travel in the same way while the next step's forward pass computes.
package final class DataParallelStep {
    package struct Settings: Sendable {
        package var seed: UInt64
        package var batchSize: Int
        /// Samples a tape holds at once; nil: the whole share.
        package var microBatchSize: Int?
        package var backend: Backend
        /// Global gradient norm above which gradients are scaled down; nil: never.
        package var clipNorm: Float?
        /// What gradients are on their way between ranks.
        package var reduceDType: DType

        package init(
            seed: UInt64, batchSize: Int, microBatchSize: Int?, backend: Backend = .fastest, clipNorm: Float?,
            reduceDType: DType = .float32
        ) {
            self.reduceDType = reduceDType
            self.seed = seed
            self.batchSize = batchSize
            self.microBatchSize = microBatchSize
            self.backend = backend
            self.clipNorm = clipNorm
        }
    }

    package let settings: Settings
    package let objective: any Objective
    package let state: ModelState
    package let learningRate: LearningRate
    package let communicator: any Communicator

    /// This rank's share of the global batch, and its micro-batches.
    package let share: Range<Int>
    private let microBatches: [Range<Int>]
    private var recordings: [Int: Recording] = [:]
    private let arena = Arena()
    private let reducer: BucketReducer
    private let bucketRanges: [Range<Int>]
    private let order: DataOrder
    private var items: [BatchItem] = []
    /// Where the data order was taken up.
    private var cursor = DataCursor()
    /// Why this rank could not read its share of the step's data.
    private var dataFailure: (any Error)?
    private var waitingSince = ContinuousClock.now
    /// What this rank is doing, for those who watch it.
    private let activity: RankActivity
    /// Told of each piece of work as it ends; for traces.
    package var observer: ((TraceSpan) -> Void)? {
        didSet { for recording in recordings.values { observe(recording.tape) } }
    }
    /// Told of each bucket of gradients as it becomes whole.
    package var bucketObserver: ((Int) -> Void)?
    /// Told of each range of `ForwardOrder` when the pass comes to it.
    package var useObserver: ((Int) -> Void)?

    package init(
        _ settings: Settings, objective: any Objective, state: ModelState, learningRate: LearningRate,
        communicator: any Communicator, activity: RankActivity = RankActivity()
    ) throws {
        self.activity = activity
        self.settings = settings
        self.objective = objective
        self.state = state
        self.learningRate = learningRate
        self.communicator = communicator
        order = DataOrder(count: objective.sampleCount, seed: settings.seed)

        let (rank, ranks, batch) = (communicator.rank, communicator.size, settings.batchSize)
        share = batch * rank / ranks..<batch * (rank + 1) / ranks
        let micro = settings.microBatchSize ?? share.count
        let end = share.upperBound
        microBatches = stride(from: share.lowerBound, to: end, by: max(1, micro)).map {
            $0..<min($0 + micro, end)
        }
        bucketRanges = GradientBuckets.ranges(of: objective.store)
        reducer = BucketReducer(
            communicator: communicator, gradients: objective.store.gradients, buckets: bucketRanges,
            slices: state.slices, sharding: state.settings.sharding, reduceDType: settings.reduceDType)
        state.gather?.waiting = { [unowned self] in waitForWeights($0) }
        for range in microBatches { _ = recording(range.count) }
    }

    /// Continues the data order from `samplesSeen` at `step`, whatever the batch size was before.
    package func resume(at step: Int, samplesSeen: Int) {
        cursor = DataCursor(step: step, samplesSeen: samplesSeen)
    }

    /// Samples that have gone into the first `steps` updates: the place in the data order.
    package func samplesSeen(after steps: Int) -> Int {
        cursor.samplesSeen + (steps - cursor.step) * settings.batchSize
    }

    /// Trains on the global batch of step `step`, counted from 0.
    ///
    /// - Parameters:
    ///   - riding: numbers of this rank's whose sums over the ranks come back with the result.
    ///   - blocks: parts of the model whose gradient norms are wanted; the same on every rank.
    /// - Throws: `NumericalFault` on every rank where loss or gradients are not finite on any; a data or
    ///   communication error.
    package func callAsFunction(step: Int, riding: [Double] = [], blocks: GradientBlocks? = nil) throws
        -> StepResult
    {
        let start = ContinuousClock.now
        var dataSeconds = 0.0
        let store = objective.store

        // Forward, loss, backward; reductions start as buckets become ready.
        var loss = 0.0
        var parts: [(name: String, value: Double)] = []
        for (index, samples) in microBatches.enumerated() {
            let recording = recording(samples.count)
            let loading = ContinuousClock.now
            activity.enter(.data, step: step)
            load(samples, step: step, into: recording)
            dataSeconds += span("data", since: loading)
            activity.enter(.compute)
            recording.context.accumulatesGradients = index > 0
            let isLast = index == microBatches.count - 1
            recording.tape.run(
                recording.context, after: isLast ? recording.startReductions : nil,
                before: state.gather != nil || useObserver != nil ? recording.awaitWeights : nil)
            loss += recording.objective.loss
            parts = Self.sum(parts, recording.objective.parts)
        }
        // Before any wait for gradients: other ranks may still wait for weights that this one has to send or to hand on.
        activity.enter(.gather)
        try state.completeWeights()
        let gather = state.gather?.takeSeconds() ?? (wait: 0, busy: 0)
        let reducing = ContinuousClock.now
        activity.enter(.reduce)
        let reduction = try reducer.finish()
        span("waiting for gradients", since: reducing)

        // The same sums on every rank, which so agree that the step is sound before anything is changed.
        let updating = ContinuousClock.now
        activity.enter(.agree)
        let own = state.slices[communicator.rank]
        let squares = ck_sum_of_squares(own.count, store.gradients + own.lowerBound)
        let blockSquares = blocks?.squares(of: store.gradients, in: own) ?? []
        var totals =
            [squares, loss, dataFailure == nil ? 0 : 1] + riding + parts.map(\.value) + blockSquares
        try communicator.allReduceSum(&totals)
        if totals[2] > 0 { try throwDataFailure(step) }
        let norm = totals[0].squareRoot()
        loss = totals[1]
        let told = Array(totals[3..<3 + riding.count])
        for index in parts.indices { parts[index].value = totals[3 + riding.count + index] }
        let blockNorms = blocks?.norms(squares: totals.suffix(blockSquares.count)) ?? []
        guard loss.isFinite, norm.isFinite else {
            throw NumericalFault(step: step, loss: loss, gradientNorm: norm)
        }

        // Clip, update, average.
        activity.enter(.update)
        let rate = learningRate(step: step)
        let scale = settings.clipNorm.map { min(1, $0 / (Float(norm) + 1e-6)) } ?? 1
        try state.update(step, learningRate: rate, gradientScale: scale)

        let optimizerSeconds = span("optimizer", since: updating)
        let total = (ContinuousClock.now - start).seconds
        let waited = reduction.waitSeconds + gather.wait
        activity.finishStep(seconds: total, own: total - waited)
        return StepResult(
            loss: loss, parts: parts, gradientNorm: norm, learningRate: rate, dataSeconds: dataSeconds,
            computeSeconds: total - dataSeconds - waited, communicationSeconds: waited,
            gatherSeconds: gather.wait, totalSeconds: total,
            messageSeconds: reduction.busySeconds + gather.busy, optimizerSeconds: optimizerSeconds,
            riding: told, blockNorms: blockNorms)
    }

    /// Returns when kernels may read all weights and nothing is under way: after the last step, or between two.
    package func completeWeights() throws(CommunicationError) { try state.completeWeights() }

    // MARK: Recordings

    /// A tape for one micro-batch size, recorded once.
    private final class Recording {
        let tape: Tape
        let context: RunContext
        let objective: any RecordedObjective
        var startReductions: ((Int) -> Void)?
        var awaitWeights: ((Int) -> Void)?

        init(tape: Tape, context: RunContext, objective: any RecordedObjective) {
            self.tape = tape
            self.context = context
            self.objective = objective
        }
    }

    private func recording(_ batch: Int) -> Recording {
        if let made = recordings[batch] { return made }
        let tape = Tape(
            dtype: state.settings.dtype, backend: settings.backend, recordsGradients: true, arena: arena)
        let recorded = objective.record(on: tape, batch: batch, globalBatch: settings.batchSize)
        let starts = GradientBuckets.starts(bucketRanges, store: objective.store, tape: tape)
        let uses = ForwardOrder.uses(
            of: ForwardOrder.ranges(of: objective.store), store: objective.store, tape: tape)
        tape.plan()
        let context = RunContext(seed: settings.seed, batch: batch)
        let recording = Recording(tape: tape, context: context, objective: recorded)
        recording.startReductions = { [reducer, unowned self] instruction in
            for bucket in starts[instruction] {
                reducer.bucketReady(bucket)
                bucketObserver?(bucket)
            }
            reducer.progress()
        }
        let needs = state.gather?.needs(uses) ?? []
        recording.awaitWeights = { [gather = state.gather, unowned self] instruction in
            gather?.progress()
            gather?.wait(for: needs[instruction])
            if let useObserver { uses[instruction].forEach(useObserver) }
        }
        observe(tape)
        recordings[batch] = recording
        return recording
    }

    /// Reads this rank's samples. A failure is kept until the ranks agree on the step: a rank that threw here would leave
    /// the others waiting for its gradients.
    private func load(_ samples: Range<Int>, step: Int, into recording: Recording) {
        items.removeAll(keepingCapacity: true)
        for sample in samples {
            let index = order.index(at: samplesSeen(after: step) + sample)
            let key = SampleKey(seed: settings.seed, step: UInt64(step), sample: UInt64(sample))
            items.append(BatchItem(index: index, key: key))
        }
        recording.context.step = UInt64(step)
        for (b, sample) in samples.enumerated() { recording.context.samples[b] = Int64(sample) }
        do {
            try recording.objective.load(items)
        } catch {
            dataFailure = dataFailure ?? error
        }
    }

    /// Throws on every rank what has failed on some.
    private func throwDataFailure(_ step: Int) throws {
        defer { dataFailure = nil }
        try communicator.collectively("reading the data of step \(step)") {
            if let dataFailure { throw dataFailure }
        }
    }

    private static func sum(
        _ a: [(name: String, value: Double)], _ b: [(name: String, value: Double)]
    ) -> [(name: String, value: Double)] {
        a.isEmpty ? b : zip(a, b).map { ($0.name, $0.value + $1.value) }
    }

    /// The pass begins or ends to wait for weights.
    private func waitForWeights(_ begins: Bool) {
        activity.enter(begins ? .gather : .compute)
        if begins { waitingSince = .now } else { span("waiting for weights", since: waitingSince) }
    }

    // MARK: Profiles

    /// This rank's kernels by kind of work, since the last call.
    package func takeProfile() -> [WorkProfile] { recordings.values.map(\.tape).takeProfile() }

    /// Tells the observer of what has just ended; returns its seconds.
    @discardableResult
    private func span(_ name: String, since start: ContinuousClock.Instant) -> Double {
        let end = ContinuousClock.now
        observer?(TraceSpan(name: name, category: name, start: start, end: end))
        return (end - start).seconds
    }

    private func observe(_ tape: Tape) {
        guard let observer else { return tape.observer = nil }
        tape.observer = { observer(TraceSpan($0)) }
    }

    /// Floating-point operations that one sample costs a step, forward and backward, as `Tape.flops` counts them.
    package var flopsPerSample: Double {
        guard let (batch, recording) = recordings.max(by: { $0.key < $1.key }), batch > 0 else { return 0 }
        return Double(recording.tape.flops) / Double(batch)
    }

    /// Bytes of activations and scratch.
    package var activationBytes: Int { arena.byteCount }
}
