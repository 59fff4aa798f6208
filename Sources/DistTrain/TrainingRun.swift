import Checkpointing
import CKernels
import Communication
import Configuration
import Foundation
import Records
import Support
import TensorCore

/// A training run: restores the newest checkpoint, trains to the last step, exports the model.
///
/// Step n is the state after n updates, so step 0 is the untrained model. All methods are collective.
final class TrainingRun {
    let task: any TrainingTask
    let configuration: any TrainingConfiguration
    let every: Intervals
    let folder: RunFolder
    let communicator: Communicator
    let watcher: JobWatcher
    let state: ModelState
    let trainingStep: TrainingStep
    let saving: RunSaving
    let records: RunRecords
    /// Sums since the last logged step and since the last checkpoint.
    private var sums = RunningSums()
    private var times = MeanTimes()
    /// Parts of the model whose gradient norms are logged; nil for none.
    private let blocks: GradientBlocks?
    private var timeLimit: TimeLimit?

    init(
        _ task: any TrainingTask, _ configuration: any TrainingConfiguration, folder: RunFolder,
        allowedChanges: AllowedChanges, watching: Watching, watcher: JobWatcher,
        communicator: Communicator
    ) throws {
        try Self.checkShares(
            batchSize: configuration.train.batchSize, samples: task.objective.sampleCount,
            ranks: communicator.size)
        (self.task, self.configuration, self.folder) = (task, configuration, folder)
        (self.communicator, self.watcher) = (communicator, watcher)
        every = configuration.intervals
        timeLimit = watching.timeLimit.map { TimeLimit(seconds: $0) }
        blocks = configuration.logging.recordsBlocks ? GradientBlocks(task.objective.store) : nil
        watcher.keepStatus(in: folder.path, name: task.identity.name, steps: every.steps)
        state = ModelState(task.objective.store, configuration.stateSettings, communicator)
        trainingStep = TrainingStep(
            configuration.stepSettings, objective: task.objective, state: state,
            learningRate: configuration.learningRate, communicator: communicator, activity: watcher.activity)
        records = RunRecords(folder, communicator, watcher)
        saving = try RunSaving(
            folder, task.identity, configuration, state: state, step: trainingStep,
            allowedChanges: allowedChanges, metricsFile: records.metricsFile, watcher: watcher,
            communicator: communicator)
    }

    // MARK: The loop

    /// Trains from `first` updates to the last step, or until a rank requests the training to stop.
    ///
    /// - Returns: the reason for an early stop, the same on every rank, after the state has been saved; nil if the
    ///   last step was reached.
    private func train(from first: Int) throws -> StoppedEarly? {
        try completeInterrupted(at: first)
        for index in first..<max(first, every.steps) {
            let step = index + 1
            let isLast = step == every.steps
            let isLogged = every.isDue(\.log, at: step) || isLast
            let reason = stopReason()

            let result = try trainingStep(
                index, votes: StepVotes(saving: saving.working, stopping: reason == nil ? 0 : 1),
                blocks: isLogged ? blocks : nil)
            sums.add(result)
            times.add(result.times)
            try saving.advance(result.votes.saving)
            let stops = result.votes.stopping > 0 && !isLast

            if isLogged { try log(result, at: step) }
            if every.isDue(\.checkReplicas, at: step) { try checkReplicas(at: step) }
            if every.isDue(\.sample, at: step) && !stops || isLast && every.sample > 0 {
                try drawSamples(at: step)
            }
            // Save the snapshot before the checkpoint, so that a run that resumes from the checkpoint has it.
            if every.isDue(\.snapshot, at: step), !stops { try saving.saveSnapshot(at: step) }
            if every.isDue(\.checkpoint, at: step) || isLast || stops {
                try saveCheckpoint(at: step, isScheduled: every.isDue(\.checkpoint, at: step) || isLast)
            }
            if (every.isDue(\.evaluate, at: step) || isLast && every.evaluate > 0) && !stops {
                try evaluate(at: step)
            }
            if stops { return try stoppedEarly(at: step, reason) }
        }
        return nil
    }

    /// Completes the periodic actions that the previous start of the run did not finish at the step where it stopped.
    private func completeInterrupted(at step: Int) throws {
        if every.isDue(\.sample, at: step), step < every.steps,
            try !records.exists(folder.samples(step: step))
        {
            try drawSamples(at: step)
        }
        guard step > 0 else { return }
        if every.isDue(\.snapshot, at: step) { try saving.saveSnapshot(at: step) }
        if every.isDue(\.evaluate, at: step) || step == every.steps, every.evaluate > 0,
            let evaluation = task.evaluation, try !records.exists(evaluation.file(step: step, in: folder))
        {
            try evaluate(at: step)
        }
    }

    // MARK: Start and end

    /// Restores, trains to the last step, exports.
    ///
    /// - Throws: `StoppedEarly` if a stop was requested and the run can be resumed.
    func train(resume: Resume) throws {
        do {
            let stopped = try restoreTrainExport(resume)
            // No rank may exit while another still waits for it in a collective.
            try communicator.barrier()
            if let stopped { throw stopped }
            records.finish(exitStatus: ExitStatus.success)
            watcher.leave(.finished, exitStatus: ExitStatus.success, message: nil)
        } catch {
            saving.completeAfterFailure(error)
            let report = FailureReport(error)
            if (try? folder.lock?.check()) != nil { records.finish(exitStatus: report.exitStatus) }
            watcher.leave(
                error is StoppedEarly ? .stopped : .failed, exitStatus: report.exitStatus,
                message: report.message)
            throw error
        }
    }

    private func restoreTrainExport(_ resume: Resume) throws -> StoppedEarly? {
        watcher.activity.enter(.load)
        let restored = try saving.restore(resume)
        let first = restored?.step
        watcher.activity.enter(.openRecords, step: first ?? 0)
        try records.open(
            try describe(), configuration: task.identity.configuration, logging: configuration.logging,
            steps: every.steps, resumedStep: first)
        sums = restored?.sums ?? RunningSums()
        let stopped: StoppedEarly?
        do {
            stopped = try train(from: first ?? 0)
            try trainingStep.completeWeights()
        } catch {
            state.drain()
            throw error
        }
        if let restored, restored.step >= every.steps {
            // No steps were left to train. A run always ends with its own checkpoint, even if it resumed from that of
            // another run.
            try saving.saveCheckpoint(at: restored.step, restored.metric, restored.sums)
        }
        try saving.finish()
        records.finishProgress()
        if stopped == nil {
            watcher.activity.enter(.export)
            try export()
        }
        return stopped
    }

    private static func checkShares(batchSize: Int, samples: Int, ranks: Int) throws(RunError) {
        guard batchSize >= ranks else {
            throw RunError(
                "train.batch_size is \(batchSize) and there are \(ranks) ranks: expected at least one sample per "
                    + "rank; start fewer ranks or raise train.batch_size")
        }
        guard samples >= ranks else {
            throw RunError(
                "the dataset has \(samples) samples and there are \(ranks) ranks: expected at least one sample per "
                    + "rank; start fewer ranks")
        }
    }

    /// The reason why this rank requests training to stop after the next step; nil if it does not.
    private func stopReason() -> String? {
        if let signal = StopRequest.signal { return "\(signal) on rank \(communicator.rank)" }
        guard communicator.isRoot else { return nil }
        if let seconds = saving.takeLongestSave() { timeLimit?.saved(in: seconds) }
        return timeLimit?.isDue() == true ? "the time limit" : nil
    }

    private func stoppedEarly(at step: Int, _ reason: String?) throws -> StoppedEarly {
        let reasons = try communicator.allGather(reason ?? "").filter { !$0.isEmpty }
        return StoppedEarly(step: step, steps: every.steps, reason: reasons.first ?? "request")
    }

    // MARK: Between steps

    /// Records the means since the last logged step.
    private func log(_ result: StepResult, at step: Int) throws {
        let row = try metrics(result, at: step)
        watcher.activity.enter(.record, step: step)
        try folder.checkLock(communicator)
        records.append(row)
        sums.logged = RunningSums.Logged()
        times = MeanTimes()
    }

    private func metrics(_ result: StepResult, at step: Int) throws -> StepMetrics {
        let slowest = try times.slowest(communicator)
        let (logged, count) = (sums.logged, Double(sums.logged.steps))
        let seen = trainingStep.samplesSeen(after: step)
        return StepMetrics(
            step: step, loss: logged.loss / count, learningRate: Double(result.learningRate),
            gradientNorm: logged.gradientNorm / count,
            imagesPerSecond: Double(configuration.train.batchSize) / slowest.total,
            dataSeconds: slowest.data, computeSeconds: slowest.compute,
            communicationSeconds: slowest.communication, totalSeconds: slowest.total,
            epoch: Double(seen) / Double(task.objective.sampleCount), samplesSeen: seen,
            parts: logged.parts.map { ($0.name, $0.value / count) }, blockNorms: result.blockNorms)
    }

    private func drawSamples(at step: Int) throws {
        watcher.activity.enter(.sample, step: step)
        let images = try withAverage { try task.sampleImages(watcher.activity) }
        try records.write(images, step: step, name: task.identity.name)
    }

    /// - Parameter isScheduled: whether the checkpoint interval ends here; otherwise the run stops early.
    private func saveCheckpoint(at step: Int, isScheduled: Bool) throws {
        watcher.activity.enter(.save, step: step)
        let loss = sums.saved.loss / Double(sums.saved.steps)
        if isScheduled { sums.saved = RunningSums.Saved() }
        records.synchronize()
        try saving.saveCheckpoint(at: step, CheckpointMetric(name: "loss", value: loss), sums)
    }

    private func evaluate(at step: Int) throws {
        guard let evaluation = task.evaluation else { return }
        // Evaluation may take long: finish the save in flight first.
        try saving.finishAttempt(at: step)
        watcher.activity.enter(.evaluate, step: step)
        do {
            let result = try withAverage {
                try evaluation.run(step: step, in: folder, watcher.activity)
            }
            records.append(result, step: step)
        } catch let error as CommunicationError {
            throw error
        } catch {
            // All ranks reach this point. Only an error that affects the training itself ends the run.
            let isFatal =
                error is RunLockError || FailureReport(error).exitStatus == ExitStatus.numericalFault
            guard try !communicator.anyAgree(isFatal) else { throw error }
            if communicator.isRoot {
                printLine(
                    "Warning: the evaluation of step \(step) failed, training continues: \(FailureReport(error).message)"
                )
            }
        }
    }

    /// Compares a checksum of the weights over the ranks, because training with diverged replicas is invalid.
    private func checkReplicas(at step: Int) throws {
        try trainingStep.completeWeights()
        for kernels in state.store.kernelMemory(dividedInto: []) {
            let hash = ck_hash(kernels.memory.count, kernels.memory.baseAddress)
            guard try communicator.allEqual(hash) else { throw ReplicaDrift(step: step) }
        }
    }

    private func export() throws {
        try withAverage {
            // Training is over, so the gradient buffer can receive the values that are sharded over the ranks.
            let values = state.store.gradients
            try state.collect(
                state.slowestAverage.map { UnsafePointer($0.values) } ?? UnsafePointer(state.master),
                into: values)
            try communicator.collectively("writing \(folder.model)") {
                try folder.lock?.check()
                if communicator.isRoot { try task.export(to: folder.model, values: values) }
            }
        }
    }

    /// Runs `body` with the slowest average in place of the weights, if there is one.
    private func withAverage<R>(_ body: () throws -> R) throws -> R {
        guard let average = state.slowestAverage else {
            try state.completeWeights()
            return try body()
        }
        return try state.withAverage(average, body)
    }

    private func describe() throws -> RunDescription {
        let hosts = try communicator.allGather(communicator.hostName)
        return RunDescription(
            name: task.identity.name, seed: configuration.seed, programVersion: Program.version,
            hosts: Array(Set(hosts)).sorted(), ranks: communicator.size, threads: Processor.threads,
            precision: configuration.train.precisionName, processor: Processor.features,
            kernels: "\(Backend.fastest.summary); OpenBLAS \(Processor.openBLASKernels)",
            configurationHash: task.identity.configurationHash, flopsPerImage: trainingStep.flopsPerSample,
            initializedFrom: task.initializedFrom)
    }
}

/// The weights of the ranks have diverged.
package struct ReplicaDrift: ReportableError {
    package let step: Int
    package var exitStatus: Int32 { ExitStatus.numericalFault }
    package var message: String {
        "step \(step): the ranks' weights differ, expected identical replicas; a host computes differently (mixed "
            + "processors, failing memory?): compare `disttrain self-test` on each, then resume from a checkpoint"
    }
}

/// Times of the steps since the last logged step.
private struct MeanTimes {
    private var count = 0
    private var sums = StepTimes()

    mutating func add(_ times: StepTimes) {
        count += 1
        sums.data += times.data
        sums.compute += times.compute
        sums.communication += times.communication
        sums.total += times.total
    }

    /// Seconds per step of the slowest rank in each phase. Collective.
    func slowest(_ communicator: Communicator) throws(CommunicationError) -> StepTimes {
        var means = [sums.data, sums.compute, sums.communication, sums.total].map { $0 / Double(count) }
        try communicator.allReduceMax(&means)
        var slowest = StepTimes()
        (slowest.data, slowest.compute) = (means[0], means[1])
        (slowest.communication, slowest.total) = (means[2], means[3])
        return slowest
    }
}
