import Checkpointing
import Communication
import Configuration
import Foundation
import Imaging
import Records
import Support
import Synchronization
import TensorCore

/// What a U-Net's run and an autoencoder's run have in common: optimizer, averages, the step, checkpoints, records.
final class TrainingSession {
    /// What is different between the two.
    struct Subject {
        /// Folder of the weights in a checkpoint: "unet" or "vae".
        var modelFolder: String
        var objective: any Objective
        var identity: RunIdentity
        /// The folder of the weights that the store started from; nil for random ones.
        var initializedFrom: String?
        /// Harmful changes of the configuration since the checkpoint that the user wants.
        var allowedChanges: AllowedChanges
        /// Pictures of the model's work with the store's present values, on rank 0; nil elsewhere. It calls `tick` as
        /// it gets on.
        var pictures: (_ tick: @escaping () -> Void) throws -> Image?
        /// Judges the store's present values; nil where that is not wanted.
        var evaluation: TrainingEvaluation?
        /// Writes what others open; `values` are the weights, fp32, in the store's layout, which kernels read too.
        /// Called on rank 0.
        var export: (_ folder: String, _ values: UnsafePointer<Float>) throws -> Void
    }

    let subject: Subject
    let settings: SessionSettings
    let communicator: any Communicator
    let run: RunFolder
    package let state: ModelState
    let step: DataParallelStep
    private let watcher: JobWatcher
    private let table: TensorTable
    private let checkpoints: CheckpointWriter
    private var timeLimit: TimeLimit?
    /// On rank 0, once training has begun.
    private var recorder: RunRecorder?
    /// Its metrics.jsonl, for the thread that commits checkpoints.
    private let metricsFile = SharedValue<AppendedFile>()
    /// The save under way.
    private var save: (began: Double, step: Int)?
    private var store: ParameterStore { subject.objective.store }

    init(
        _ subject: Subject, _ settings: SessionSettings, run: RunFolder, watching: Watching,
        watcher: JobWatcher, communicator: any Communicator
    ) throws {
        self.subject = subject
        self.settings = settings
        self.run = run
        self.communicator = communicator
        let (samples, ranks) = (subject.objective.sampleCount, communicator.size)
        guard settings.batchSize >= ranks else {
            throw RunError(
                "train.batch_size is \(settings.batchSize) and there are \(ranks) ranks: expected at least one sample a "
                    + "rank; start fewer ranks or raise train.batch_size")
        }
        guard samples >= ranks else {
            throw RunError(
                "the dataset has \(samples) samples and there are \(ranks) ranks: expected at least one sample a rank; "
                    + "start fewer ranks")
        }
        timeLimit = watching.timeLimit.map { TimeLimit(seconds: $0) }
        self.watcher = watcher
        watcher.keepStatus(in: run.path, name: subject.identity.name, steps: settings.cadence.steps)
        let store = subject.objective.store
        state = ModelState(store, settings.state, communicator)
        step = try DataParallelStep(
            DataParallelStep.Settings(
                seed: settings.seed, batchSize: settings.batchSize, microBatchSize: settings.microBatchSize,
                clipNorm: settings.clipNorm.map { Float($0) }, reduceDType: settings.reduceDType),
            objective: subject.objective, state: state,
            learningRate: settings.learningRate, communicator: communicator, activity: watcher.activity)
        table = TensorTable(store)
        checkpoints = try CheckpointWriter(
            folder: run.checkpoints, snapshots: settings.cadence.snapshotEvery > 0 ? run.snapshots : nil,
            table: table, run: subject.identity, retention: settings.retention, communicator: communicator,
            progress: StorageProgress.advance,
            checkLock: { [lock = run.lock, metricsFile] in
                try lock?.check()
                // A checkpoint must not outlive the curve up to it.
                try metricsFile.current?.commit()
            })
    }

    private var buffers: [StateBuffer] { state.buffers(modelFolder: subject.modelFolder) }

    /// Restores, trains to the last step, exports.
    ///
    /// - Throws: `StoppedEarly` where it was asked to stop and may be run again; whatever else goes wrong.
    func train(resume: Resume) throws {
        do {
            let stopped = try trainAndExport(resume)
            // None goes while another may still wait for it in a collective.
            try communicator.barrier()
            if let stopped { throw stopped }
            recorder?.finish(exitStatus: ExitStatus.success)
            watcher.leave(.finished, exitStatus: ExitStatus.success, message: nil)
        } catch {
            if !(error is CommunicationError) {
                watcher.activity.enter(.save)
                checkpoints.completeAfterFailure(within: Self.timeToCompleteSave)
            }
            let report = FailureReport(error)
            if recorder != nil, (try? run.lock?.check()) != nil {
                recorder?.finish(exitStatus: report.exitStatus)
            }
            watcher.leave(
                error is StoppedEarly ? .stopped : .failed, exitStatus: report.exitStatus,
                message: report.message)
            throw error
        }
    }

    /// Seconds that a save under way is given when training ends with an error.
    private static let timeToCompleteSave = 120.0

    private func trainAndExport(_ resume: Resume) throws -> StoppedEarly? {
        watcher.activity.enter(.load)
        let restored = try restore(resume)
        let first = restored?.manifest.step
        watcher.activity.enter(.openRecords, step: first ?? 0)
        try communicator.collectively("writing config.yaml") {
            if communicator.isRoot { try run.writeConfiguration(subject.identity.configuration) }
        }
        let description = try describe()
        let progress =
            communicator.isRoot ? TrainingProgress(total: settings.cadence.steps, first: first ?? 0) : nil
        recorder = try communicator.collectively("opening metrics.jsonl") {
            try progress.map { progress in
                let recorder = try RunRecorder(
                    run, description, configuration: subject.identity.configuration,
                    logging: settings.logging,
                    resumedStep: first, host: communicator.hostName, onProblem: { progress.note($0) })
                metricsFile.current = recorder.metricsFile
                return recorder
            }
        }
        try auxiliary("putting the samples back to step \(first ?? 0)") { try run.cutPicturesBack(to: first) }
        let trainer = Trainer(
            step: step, cadence: settings.cadence, communicator: communicator,
            actions: Trainer.Actions(
                log: { [self] entry in
                    watcher.activity.enter(.record, step: entry.step)
                    try run.checkLock(communicator)
                    recorder?.append(record(entry))
                    if let progress { watcher.note(progress.update(entry)) }
                },
                sample: { [self] step in
                    watcher.activity.enter(.sample, step: step)
                    try savePictures(at: step)
                },
                isSampled: { [self] step in
                    try communicator.fromRoot("looking for samples") {
                        FileManager.default.fileExists(atPath: run.samples(step: step))
                    }
                },
                checkpoint: { [self] in
                    watcher.activity.enter(.save, step: $0)
                    recorder?.synchronize()
                    try saveCheckpoint(at: $0, CheckpointMetric(name: "loss", value: $1), $2)
                },
                working: { [self] in checkpoints.working }, advance: { [self] in try advanceSave($0) },
                stopReason: { [self] in stopReason() },
                evaluate: { [self] step in
                    guard let result = try evaluate(at: step) else { return }
                    recorder?.append(result, step: step)
                    progress?.note("step \(step)  \(result.summary)")
                },
                isEvaluated: { [self] step in
                    try communicator.fromRoot("looking for an evaluation") {
                        guard let evaluation = subject.evaluation else { return true }
                        return FileManager.default.fileExists(atPath: evaluation.file(step: step, in: run))
                    }
                },
                snapshot: { [self] in try saveSnapshot(at: $0) }),
            blocks: settings.logging.recordsBlocks ? GradientBlocks(store) : nil)
        let stopped = try trainer.train(from: first ?? 0, sums: restored?.manifest.sums ?? RunningSums())
        if let restored, restored.manifest.step >= settings.cadence.steps {
            // Nothing was left to train. A run ends with a checkpoint of its own, also where it went on from another's.
            try saveCheckpoint(
                at: restored.manifest.step, restored.manifest.metric, restored.manifest.sums)
        }
        watcher.activity.enter(.save)
        try run.checkLock(communicator)
        try checkpoints.finish(within: settings.saveTimeout)
        try noteSaved()
        progress?.finish()
        if stopped == nil {
            watcher.activity.enter(.export)
            try export()
        }
        return stopped
    }

    /// Why this rank wants training to end after the step that comes.
    private func stopReason() -> String? {
        if let signal = StopRequest.signal { return "\(signal) on rank \(communicator.rank)" }
        guard communicator.isRoot, timeLimit?.isDue() == true else { return nil }
        return "the time limit"
    }

    private func advanceSave(_ working: Double) throws {
        if checkpoints.isSaving, working == 0 { watcher.activity.enter(.save) }
        try checkpoints.advance(working)
        try noteSaved()
    }

    /// Publishes that a save has completed, or keeps failing.
    private func noteSaved() throws {
        watcher.note(alarm: checkpoints.alarm?.report.message)
        guard let save, !checkpoints.isSaving else { return }
        self.save = nil
        timeLimit?.saved(in: monotonicSeconds() - save.began)
        // A listing that fails costs only the news of the checkpoint.
        guard communicator.isRoot, let newest = try? run.checkpoints.steps().last else { return }
        watcher.note(checkpoint: newest)
    }

    /// Writes what nothing depends on, on rank 0. A failure is reported and does not stop training: the next interval
    /// writes it anew. Collective; throws where the folder no longer belongs to this run.
    private func auxiliary(_ what: String, _ body: () throws -> Void) throws {
        try communicator.collectively(what) {
            guard communicator.isRoot else { return }
            try run.lock?.check()
            do {
                try body()
            } catch {
                printLine("Warning: \(what) failed, training continues: \(FailureReport(error).message)")
            }
        }
    }

    private func record(_ entry: Trainer.LogEntry) -> StepMetrics {
        let seen = step.samplesSeen(after: entry.step)
        return StepMetrics(
            step: entry.step, loss: entry.loss, learningRate: entry.learningRate,
            gradientNorm: entry.gradientNorm, imagesPerSecond: entry.imagesPerSecond,
            dataSeconds: entry.dataSeconds, computeSeconds: entry.computeSeconds,
            communicationSeconds: entry.communicationSeconds, totalSeconds: entry.stepSeconds,
            epoch: Double(seen) / Double(subject.objective.sampleCount), samplesSeen: seen,
            parts: entry.parts,
            blockNorms: entry.blockNorms
        )
    }

    /// The checkpoint that the run goes on from; nil for a fresh start.
    private func restore(_ resume: Resume) throws -> Checkpoint? {
        var notes: [String] = []
        let found = try run.checkpoints.restore(
            resume, into: buffers, table, communicator: communicator,
            accept: { [self] in notes = try changes(since: $0) }, warn: { printLine("Warning: \($0)") })
        try run.snapshots.setAside(after: found?.manifest.step ?? 0, communicator) {
            printLine("Warning: \($0)")
        }
        guard let checkpoint = found else {
            if communicator.isRoot, FileManager.default.fileExists(atPath: run.metrics) {
                printLine("Note: the run has no checkpoint yet: it starts again from its initial weights")
            }
            return nil
        }
        step.resume(at: checkpoint.manifest.step, samplesSeen: checkpoint.manifest.samplesSeen)
        try state.showMasters()
        if communicator.isRoot {
            for note in notes { printLine("Note: \(note)") }
            printLine("Resuming from \(checkpoint.path), step \(checkpoint.manifest.step)")
            watcher.note(checkpoint: checkpoint.manifest.step)
        }
        return checkpoint
    }

    /// What the run does otherwise than the one that made a checkpoint; throws where that would do harm.
    private func changes(since checkpoint: Checkpoint) throws -> [String] {
        let (old, new) = (checkpoint.manifest.run, subject.identity)
        let notes = try ConfigurationChanges(from: old, to: new).check(
            subject.allowedChanges, of: checkpoint.path)
        return old.programVersion == new.programVersion
            ? notes : notes + ["program version was \(old.programVersion), is \(new.programVersion)"]
    }

    private func saveCheckpoint(
        at step: Int, _ metric: CheckpointMetric?, _ sums: RunningSums
    ) throws {
        watcher.activity.enter(.save, step: step)
        try run.checkLock(communicator)
        save = (monotonicSeconds(), step)
        try checkpoints.begin(
            TrainingState(
                step: step, samplesSeen: self.step.samplesSeen(after: step), metric: metric, sums: sums,
                buffers: buffers))
    }

    private func saveSnapshot(at step: Int) throws {
        watcher.activity.enter(.save, step: step)
        try checkpoints.finishAttempt()
        try noteSaved()
        try run.checkLock(communicator)
        try checkpoints.beginSnapshot(
            TrainingState(
                step: step, samplesSeen: self.step.samplesSeen(after: step), buffers: state.powerAverages))
    }

    private func savePictures(at step: Int) throws {
        let grid = try withAverage { try subject.pictures(watcher.activity.tick) }
        try auxiliary("writing the samples of step \(step)") {
            guard let grid else { return }
            let png = grid.pngData(text: ["run": subject.identity.name, "step": String(step)])
            // First, because a picture that is in its folder is not made again by a run that is resumed here.
            recorder?.append(picture: png, width: grid.width, height: grid.height, step: step)
            try FileManager.default.createDirectory(
                atPath: run.samples, withIntermediateDirectories: true)
            try Image.write(png: png, to: run.samples(step: step))
            try LossCurve(run).write()
        }
    }

    private func evaluate(at step: Int) throws -> EvaluationResult? {
        guard let evaluation = subject.evaluation else { return nil }
        watcher.activity.enter(.save, step: step)
        // It may take long: what was saved before should be whole.
        try checkpoints.finishAttempt()
        watcher.activity.enter(.evaluate, step: step)
        do {
            return try withAverage { try evaluation.run(step: step, in: run, tick: watcher.activity.tick) }
        } catch let error as CommunicationError {
            throw error
        } catch {
            // Every rank is here. Only what concerns training itself ends it.
            let isFatal =
                error is RunLockError || FailureReport(error).exitStatus == ExitStatus.numericalFault
            guard try !communicator.anyAgree(isFatal) else { throw error }
            if communicator.isRoot {
                printLine(
                    "Warning: the evaluation of step \(step) failed, training continues: \(FailureReport(error).message)"
                )
            }
            return nil
        }
    }

    private func export() throws {
        try withAverage {
            // Training is over: the gradients' memory takes the whole of what the ranks hold in slices.
            let values = store.gradients
            try state.collect(
                state.slowestAverage.map { UnsafePointer($0.values) } ?? UnsafePointer(state.master),
                into: values)
            try communicator.collectively("writing \(run.model)") {
                try run.lock?.check()
                if communicator.isRoot { try subject.export(run.model, values) }
            }
        }
    }

    /// With the slowest average in place of the weights, where there is one.
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
            name: subject.identity.name, seed: settings.seed, programVersion: Program.version,
            hosts: Array(Set(hosts)).sorted(), ranks: communicator.size, threads: Processor.threads,
            precision: settings.precision, processor: Processor.features,
            kernels: "\(Backend.fastest.summary); OpenBLAS \(Processor.openBLASKernels)",
            configurationHash: subject.identity.configurationHash, flopsPerImage: step.flopsPerSample,
            initializedFrom: subject.initializedFrom)
    }
}

/// A value that one thread sets and others read.
private final class SharedValue<Value: Sendable>: Sendable {
    private let value = Mutex<Value?>(nil)
    var current: Value? {
        get { value.withLock { $0 } }
        set { value.withLock { $0 = newValue } }
    }
}

/// The numbers that a session runs by, from either kind of configuration.
package struct SessionSettings {
    var seed: UInt64
    var batchSize: Int
    var microBatchSize: Int?
    var clipNorm: Double?
    var reduceDType: DType
    package var state: ModelState.Settings
    var learningRate: LearningRate
    var cadence: Cadence
    var retention: Retention
    /// Seconds for which the last save is retried.
    var saveTimeout: Double
    var logging: LoggingConfiguration

    /// As a configuration names it.
    var precision: String { state.dtype == .bfloat16 ? "bf16" : "fp32" }
}

extension RunFolder {
    /// Opens the run's folder on rank 0, which then holds its lock. Collective.
    static func open(
        _ path: String, _ name: String, _ resume: Resume, _ communicator: any Communicator
    ) throws -> RunFolder {
        try communicator.collectively("opening \(path)") {
            guard communicator.isRoot else { return RunFolder(path) }
            return try RunFolder.open(path, name: name, resume: resume) { printLine("Note: \($0)") }
        }
    }

    /// Makes sure that the folder is still this run's, before anything is written. Collective.
    func checkLock(_ communicator: any Communicator) throws {
        try communicator.collectively("checking the lock of \(path)") { try lock?.check() }
    }
}
