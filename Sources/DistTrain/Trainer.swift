import Checkpointing
import CKernels
import Communication
import Foundation
import Support

/// When a run does what, in steps; 0 means never.
package struct Cadence: Sendable {
    package var steps: Int
    package var logEvery: Int
    package var sampleEvery: Int
    package var checkpointEvery: Int
    package var checkReplicasEvery: Int
    package var snapshotEvery: Int
    package var evaluateEvery = 0

    package init(
        steps: Int, logEvery: Int, sampleEvery: Int, checkpointEvery: Int, checkReplicasEvery: Int,
        snapshotEvery: Int = 0
    ) {
        self.snapshotEvery = snapshotEvery
        self.steps = steps
        self.logEvery = logEvery
        self.sampleEvery = sampleEvery
        self.checkpointEvery = checkpointEvery
        self.checkReplicasEvery = checkReplicasEvery
    }

    static func isDue(_ every: Int, at step: Int) -> Bool { every > 0 && step % every == 0 }
}

/// The training loop: steps, and between them records, samples and checkpoints. Step n is whatever happened after
/// n updates, so step 0 is the untrained model.
package final class Trainer {
    /// What happens between steps; all are called on every rank.
    package struct Actions {
        /// Records a logged interval.
        package var log: (LogEntry) throws -> Void
        /// Makes pictures after `step` updates.
        package var sample: (_ step: Int) throws -> Void
        /// Whether pictures of a step are there already; the same on every rank.
        package var isSampled: (_ step: Int) throws -> Bool
        /// Starts to save the state after `step` updates. The loss is the mean over the steps since the save before, or
        /// since the start; a run that was resumed gives the same as one that was not.
        package var checkpoint: (_ step: Int, _ loss: Double, _ sums: RunningSums) throws -> Void
        /// Starts to save the averages after `step` updates; nothing where those of this step are saved.
        package var snapshot: (_ step: Int) throws -> Void
        /// Whether a save is at work on this rank, 1 or 0; and what to do with the sum over the ranks.
        package var working: () -> Double
        package var advance: (_ working: Double) throws -> Void
        /// Why this rank wants to stop, if it does.
        package var stopReason: () -> String?
        /// Judges the model after `step` updates; and whether that was done before, the same on every rank.
        package var evaluate: (_ step: Int) throws -> Void
        package var isEvaluated: (_ step: Int) throws -> Bool

        package init(
            log: @escaping (LogEntry) throws -> Void, sample: @escaping (Int) throws -> Void,
            isSampled: @escaping (Int) throws -> Bool = { $0 > 0 },
            checkpoint: @escaping (Int, Double, RunningSums) throws -> Void,
            working: @escaping () -> Double = { 0 }, advance: @escaping (Double) throws -> Void = { _ in },
            stopReason: @escaping () -> String? = { nil },
            evaluate: @escaping (Int) throws -> Void = { _ in },
            isEvaluated: @escaping (Int) throws -> Bool = { $0 > 0 },
            snapshot: @escaping (Int) throws -> Void = { _ in }
        ) {
            self.snapshot = snapshot
            self.evaluate = evaluate
            self.isEvaluated = isEvaluated
            self.isSampled = isSampled
            self.stopReason = stopReason
            self.log = log
            self.sample = sample
            self.checkpoint = checkpoint
            self.working = working
            self.advance = advance
        }
    }

    /// Means over the steps since the last entry.
    package struct LogEntry: Sendable {
        package let step: Int
        package let loss: Double
        package let parts: [(name: String, value: Double)]
        package let learningRate: Double
        package let gradientNorm: Double
        package let imagesPerSecond: Double
        /// Seconds a step, mean over the interval, of the slowest rank in each phase.
        package let dataSeconds: Double
        package let computeSeconds: Double
        package let communicationSeconds: Double
        package let stepSeconds: Double
        /// Gradient norms by block, of the step itself.
        package let blockNorms: [(name: String, value: Double)]
    }

    let step: DataParallelStep
    let cadence: Cadence
    let communicator: any Communicator
    let actions: Actions
    /// Whose gradient norms are logged.
    let blocks: GradientBlocks?

    package init(
        step: DataParallelStep, cadence: Cadence, communicator: any Communicator, actions: Actions,
        blocks: GradientBlocks? = nil
    ) {
        self.blocks = blocks
        self.step = step
        self.cadence = cadence
        self.communicator = communicator
        self.actions = actions
    }

    /// Trains from `first` updates to the last step, or until a rank wants to stop.
    ///
    /// - Parameter sums: what the checkpoint brought along.
    /// - Returns: why it stopped early, with the state saved, the same on every rank; nil at the last step.
    /// - Throws: what a step, an action or a rank's disagreement throws; all ranks end together.
    package func train(from first: Int, sums: RunningSums = RunningSums()) throws -> StoppedEarly? {
        do {
            let stopped = try steps(from: first, sums)
            try step.completeWeights()
            return stopped
        } catch {
            step.state.settle()
            throw error
        }
    }

    private func steps(from first: Int, _ sums: RunningSums) throws -> StoppedEarly? {
        // A run that had to stop in haste has left the pictures of its last step to this one.
        if Cadence.isDue(cadence.sampleEvery, at: first), first < cadence.steps, try !actions.isSampled(first)
        {
            try actions.sample(first)
        }
        // As well as a snapshot.
        if first > 0, Cadence.isDue(cadence.snapshotEvery, at: first) { try actions.snapshot(first) }
        // And an evaluation that was cut off goes on.
        if first > 0, Cadence.isDue(cadence.evaluateEvery, at: first) || first == cadence.steps,
            cadence.evaluateEvery > 0, try !actions.isEvaluated(first)
        {
            try actions.evaluate(first)
        }
        var sums = sums
        var times = StepTimes()
        for number in first..<max(first, cadence.steps) {
            let done = number + 1
            let isLast = done == cadence.steps
            let isLogged = Cadence.isDue(cadence.logEvery, at: done) || isLast
            let reason = actions.stopReason()
            let result = try step(
                step: number, riding: [actions.working(), reason == nil ? 0 : 1],
                blocks: isLogged ? blocks : nil)
            sums.add(result)
            times.add(result)
            try actions.advance(result.riding[0])
            let stops = result.riding[1] > 0 && !isLast
            if isLogged {
                try actions.log(try entry(sums.logged, times, of: result, at: done))
                sums.logged = RunningSums.Logged()
                times = StepTimes()
            }
            if Cadence.isDue(cadence.checkReplicasEvery, at: done) { try checkReplicas(at: done) }
            if Cadence.isDue(cadence.sampleEvery, at: done) && !stops || (isLast && cadence.sampleEvery > 0) {
                try actions.sample(done)
            }
            // Before the checkpoint, which waits for it: a run that goes on from there has it.
            if Cadence.isDue(cadence.snapshotEvery, at: done), !stops { try actions.snapshot(done) }
            let isDue = Cadence.isDue(cadence.checkpointEvery, at: done) || isLast
            if isDue || stops {
                let loss = sums.saved.loss / Double(sums.saved.steps)
                if isDue { sums.saved = RunningSums.Saved() }
                try actions.checkpoint(done, loss, sums)
            }
            let isJudged =
                Cadence.isDue(cadence.evaluateEvery, at: done) || isLast && cadence.evaluateEvery > 0
            if isJudged && !stops { try actions.evaluate(done) }
            if stops { return try stopped(at: done, reason) }
        }
        return nil
    }

    private func stopped(at step: Int, _ reason: String?) throws -> StoppedEarly {
        let reasons = try communicator.allGather(reason ?? "").filter { !$0.isEmpty }
        return StoppedEarly(step: step, steps: cadence.steps, reason: reasons.first ?? "request")
    }

    private func entry(
        _ sums: RunningSums.Logged, _ times: StepTimes, of result: StepResult, at step: Int
    ) throws -> LogEntry {
        var slowest = times.means
        try communicator.allReduceMax(&slowest)
        let count = Double(sums.steps)
        return LogEntry(
            step: step, loss: sums.loss / count, parts: sums.parts.map { ($0.name, $0.value / count) },
            learningRate: Double(result.learningRate), gradientNorm: sums.gradientNorm / count,
            imagesPerSecond: Double(self.step.settings.batchSize) / slowest[3], dataSeconds: slowest[0],
            computeSeconds: slowest[1], communicationSeconds: slowest[2], stepSeconds: slowest[3],
            blockNorms: result.blockNorms)
    }

    /// Compares a checksum of the weights over the ranks: replicas that drift apart train nothing.
    private func checkReplicas(at done: Int) throws {
        let store = step.objective.store
        try step.completeWeights()
        for kernels in store.kernelMemory(dividedInto: []) {
            let hash = ck_hash(kernels.memory.count, kernels.memory.baseAddress)
            guard try communicator.allEqual(hash) else { throw ReplicaDrift(step: done) }
        }
    }

    /// Seconds of the steps since the last log entry that this process has made.
    private struct StepTimes {
        private var count = 0
        private var sums = [0.0, 0.0, 0.0, 0.0]

        mutating func add(_ result: StepResult) {
            count += 1
            let seconds = [
                result.dataSeconds, result.computeSeconds, result.communicationSeconds, result.totalSeconds,
            ]
            for index in sums.indices { sums[index] += seconds[index] }
        }

        var means: [Double] { sums.map { $0 / Double(count) } }
    }
}

/// The ranks' weights are no longer the same.
package struct ReplicaDrift: ReportableError {
    package let step: Int
    package var exitStatus: Int32 { ExitStatus.numericalFault }
    package var message: String {
        "step \(step): the ranks' weights differ, expected identical replicas; a host computes differently (mixed "
            + "processors, failing memory?): compare `disttrain self-test` on each, then resume from a checkpoint"
    }
}
