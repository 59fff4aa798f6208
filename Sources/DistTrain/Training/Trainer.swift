import CKernels
import Foundation
import TensorCore

/// When a run does what, in steps; 0 means never.
public struct Cadence: Sendable {
    public var steps: Int
    public var logEvery: Int
    public var sampleEvery: Int
    public var checkpointEvery: Int
    public var checkReplicasEvery: Int

    public init(steps: Int, logEvery: Int, sampleEvery: Int, checkpointEvery: Int, checkReplicasEvery: Int) {
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
public final class Trainer {
    /// What happens between steps; all are called on every rank.
    public struct Actions {
        /// Records a logged interval.
        public var log: (LogEntry) throws -> Void
        /// Makes pictures after `step` updates.
        public var sample: (_ step: Int) throws -> Void
        /// Starts to save the state after `step` updates. The loss is the mean over the steps since the save before, or
        /// since the start; a run that was resumed gives the same as one that was not.
        public var checkpoint: (_ step: Int, _ loss: Double) throws -> Void
        /// Whether a save is at work on this rank, 1 or 0; and what to do with the sum over the ranks.
        public var working: () -> Double
        public var settle: (_ working: Double) throws -> Void

        public init(
            log: @escaping (LogEntry) throws -> Void, sample: @escaping (Int) throws -> Void,
            checkpoint: @escaping (Int, Double) throws -> Void, working: @escaping () -> Double = { 0 },
            settle: @escaping (Double) throws -> Void = { _ in }
        ) {
            self.log = log
            self.sample = sample
            self.checkpoint = checkpoint
            self.working = working
            self.settle = settle
        }
    }

    /// Means over the steps since the last entry.
    public struct LogEntry: Sendable {
        public let step: Int
        public let loss: Double
        public let parts: [(name: String, value: Double)]
        public let learningRate: Double
        public let gradientNorm: Double
        public let imagesPerSecond: Double
        /// Seconds a step, mean over the interval, of the slowest rank in each phase.
        public let dataSeconds: Double
        public let computeSeconds: Double
        public let communicationSeconds: Double
        public let stepSeconds: Double
    }

    let step: DataParallelStep
    let cadence: Cadence
    let communicator: any Communicator
    let actions: Actions

    public init(
        step: DataParallelStep, cadence: Cadence, communicator: any Communicator, actions: Actions
    ) {
        self.step = step
        self.cadence = cadence
        self.communicator = communicator
        self.actions = actions
    }

    /// Trains from `first` updates to the last step.
    ///
    /// - Throws: what a step, an action or a rank's disagreement throws; all ranks end together.
    public func train(from first: Int) throws {
        if first == 0, cadence.sampleEvery > 0 { try actions.sample(0) }
        var interval = Interval()
        var losses = (sum: 0.0, count: 0)  // Since the checkpoint before.
        for number in first..<max(first, cadence.steps) {
            let result = try step(step: number, riding: actions.working())
            interval.add(result)
            losses = (losses.sum + result.loss, losses.count + 1)
            try actions.settle(result.riding)
            let done = number + 1
            let isLast = done == cadence.steps
            if Cadence.isDue(cadence.logEvery, at: done) || isLast {
                try actions.log(try entry(interval, at: done))
                interval = Interval()
            }
            if Cadence.isDue(cadence.checkReplicasEvery, at: done) { try checkReplicas(at: done) }
            if Cadence.isDue(cadence.sampleEvery, at: done) || (isLast && cadence.sampleEvery > 0) {
                try actions.sample(done)
            }
            if Cadence.isDue(cadence.checkpointEvery, at: done) || isLast {
                try actions.checkpoint(done, losses.sum / Double(losses.count))
                losses = (0, 0)
            }
        }
    }

    private func entry(_ interval: Interval, at step: Int) throws -> LogEntry {
        var slowest = [interval.data, interval.compute, interval.communication, interval.total].map {
            $0 / Double(interval.count)
        }
        try communicator.allReduceMax(&slowest)
        return LogEntry(
            step: step, loss: interval.loss / Double(interval.count),
            parts: interval.parts.map { ($0.name, $0.value / Double(interval.count)) },
            learningRate: Double(interval.learningRate),
            gradientNorm: interval.gradientNorm / Double(interval.count),
            imagesPerSecond: Double(self.step.settings.batchSize) / slowest[3], dataSeconds: slowest[0],
            computeSeconds: slowest[1], communicationSeconds: slowest[2], stepSeconds: slowest[3])
    }

    /// Compares a checksum of the weights over the ranks: replicas that drift apart train nothing.
    private func checkReplicas(at done: Int) throws {
        let store = step.objective.store
        for kernels in store.kernelMemory(dividedInto: []) {
            let hash = ck_hash(kernels.memory.count, kernels.memory.baseAddress)
            guard try communicator.allEqual(hash) else { throw ReplicaDrift(step: done) }
        }
    }

    /// Sums over the steps since the last log entry.
    private struct Interval {
        var count = 0
        var loss = 0.0
        var parts: [(name: String, value: Double)] = []
        var gradientNorm = 0.0
        var learningRate: Float = 0
        var data = 0.0
        var compute = 0.0
        var communication = 0.0
        var total = 0.0

        mutating func add(_ result: StepResult) {
            count += 1
            loss += result.loss
            if parts.isEmpty {
                parts = result.parts
            } else {
                for index in parts.indices { parts[index].value += result.parts[index].value }
            }
            gradientNorm += result.gradientNorm
            learningRate = result.learningRate
            data += result.dataSeconds
            compute += result.computeSeconds
            communication += result.communicationSeconds
            total += result.totalSeconds
        }
    }
}

/// The ranks' weights are no longer the same.
public struct ReplicaDrift: ReportableError {
    public let step: Int
    public var exitStatus: Int32 { ExitStatus.numericalFault }
    public var message: String {
        "step \(step): the ranks' weights differ, expected identical replicas; a host computes differently (mixed "
            + "processors, failing memory?): compare `disttrain self-test` on each, then resume from a checkpoint"
    }
}
