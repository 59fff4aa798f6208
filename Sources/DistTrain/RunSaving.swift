import Checkpointing
import Communication
import Configuration
import Foundation
import Records
import Support

/// Restores a run's state and saves it while training continues. All methods are collective.
final class RunSaving {
    private let folder: RunFolder
    private let identity: RunIdentity
    private let allowedChanges: AllowedChanges
    private let state: ModelState
    private let step: TrainingStep
    private let table: TensorTable
    private let writer: CheckpointWriter
    private let watcher: JobWatcher
    private let communicator: Communicator
    /// Time for which the last save is retried, in seconds.
    private let timeout: Double
    /// The start of the save in flight, on the monotonic clock.
    private var began: Double?
    /// The longest save since the last call of `takeLongestSave`.
    private var longestSave: Double?

    /// Seconds to wait for a save in flight when training ends with an error.
    private static let timeToComplete = 120.0

    init(
        _ folder: RunFolder, _ identity: RunIdentity, _ configuration: any TrainingConfiguration,
        state: ModelState, step: TrainingStep, allowedChanges: AllowedChanges,
        metricsFile: SharedValue<AppendedFile>, watcher: JobWatcher, communicator: Communicator
    ) throws {
        (self.folder, self.identity, self.allowedChanges) = (folder, identity, allowedChanges)
        (self.state, self.step, self.watcher, self.communicator) = (state, step, watcher, communicator)
        timeout = configuration.checkpoint.saveTimeout
        table = TensorTable(state.store)
        writer = try CheckpointWriter(
            folder: folder.checkpoints,
            snapshots: configuration.intervals.snapshot > 0 ? folder.snapshots : nil,
            table: table, run: identity, retention: configuration.retention, communicator: communicator,
            progress: StorageProgress.advance,
            checkLock: { [lock = folder.lock] in
                try lock?.check()
                // The metrics up to a checkpoint must be durable before the checkpoint is.
                try metricsFile.current?.commit()
            })
    }

    // MARK: Restoring

    /// Loads the checkpoint that the run resumes from; nil for a fresh start.
    func restore(_ resume: Resume) throws -> CheckpointManifest? {
        var notes: [String] = []
        let found = try folder.checkpoints.restore(
            resume, into: buffers, table, communicator: communicator,
            accept: { [self] in notes = try changes(since: $0) }, warn: { printLine("Warning: \($0)") })
        try folder.snapshots.setAside(after: found?.manifest.step ?? 0, communicator) {
            printLine("Warning: \($0)")
        }
        guard let checkpoint = found else {
            if communicator.isRoot, FileManager.default.fileExists(atPath: folder.metrics) {
                printLine("Note: the run has no checkpoint yet: it starts again from its initial weights")
            }
            return nil
        }
        step.resume(at: checkpoint.manifest.step, samplesSeen: checkpoint.manifest.samplesSeen)
        try state.publishMasters()
        if communicator.isRoot {
            for note in notes { printLine("Note: \(note)") }
            printLine("Resuming from \(checkpoint.path), step \(checkpoint.manifest.step)")
            watcher.note(checkpoint: checkpoint.manifest.step)
        }
        return checkpoint.manifest
    }

    /// The differences between this run and the one that wrote a checkpoint; throws if one is not allowed.
    private func changes(since checkpoint: Checkpoint) throws -> [String] {
        let (old, new) = (checkpoint.manifest.run, identity)
        let notes = try ConfigurationChanges(from: old, to: new).check(allowedChanges, of: checkpoint.path)
        return old.programVersion == new.programVersion
            ? notes : notes + ["program version was \(old.programVersion), is \(new.programVersion)"]
    }

    // MARK: Saving

    private var buffers: [StateBuffer] { state.buffers(modelFolder: identity.modelFolder) }

    /// 1 while this rank's thread is writing a checkpoint, else 0.
    var working: Double { writer.working }

    /// Starts to save the state after `step` updates.
    ///
    /// - Parameters:
    ///   - metric: the mean loss since the last checkpoint; a resumed run computes the same as an uninterrupted one.
    ///   - sums: the partial sums from which the next logged step and the next checkpoint continue.
    func saveCheckpoint(at step: Int, _ metric: CheckpointMetric?, _ sums: RunningSums) throws {
        watcher.activity.enter(.save, step: step)
        try folder.checkLock(communicator)
        began = monotonicSeconds()
        try writer.begin(
            TrainingState(
                step: step, samplesSeen: self.step.samplesSeen(after: step), metric: metric, sums: sums,
                buffers: buffers))
    }

    /// Starts to save the averages after `step` updates; does nothing if those of this step are already saved.
    func saveSnapshot(at step: Int) throws {
        try finishAttempt(at: step)
        try noteSaved()
        try folder.checkLock(communicator)
        try writer.beginSnapshot(
            TrainingState(
                step: step, samplesSeen: self.step.samplesSeen(after: step), buffers: state.powerAverages))
    }

    /// Advances the save in flight; called in every step.
    ///
    /// - Parameter working: the sum of all ranks' `working`.
    func advance(_ working: Double) throws {
        if writer.isSaving, working == 0 { watcher.activity.enter(.save) }
        try writer.advance(working)
        try noteSaved()
    }

    /// Waits until no attempt to save is in flight.
    func finishAttempt(at step: Int) throws {
        watcher.activity.enter(.save, step: step)
        try writer.finishAttempt()
    }

    /// Waits until the last save is committed, and retries it if it failed.
    func finish() throws {
        watcher.activity.enter(.save)
        try folder.checkLock(communicator)
        try writer.finish(within: timeout)
        try noteSaved()
    }

    /// Completes a save in flight when the run ends with an error: the state that is being saved is valid.
    func completeAfterFailure(_ error: any Error) {
        guard !(error is CommunicationError) else { return }
        watcher.activity.enter(.save)
        writer.completeAfterFailure(within: Self.timeToComplete)
    }

    /// Publishes that a save has completed, or that it fails repeatedly.
    private func noteSaved() throws {
        watcher.note(alarm: writer.alarm?.report.message)
        guard let began, !writer.isSaving else { return }
        self.began = nil
        longestSave = max(longestSave ?? 0, monotonicSeconds() - began)
        // If the listing fails, only the status lacks the new checkpoint.
        guard communicator.isRoot, let newest = try? folder.checkpoints.steps().last else { return }
        watcher.note(checkpoint: newest)
    }

    /// Seconds of the longest save that has completed since the last call.
    func takeLongestSave() -> Double? {
        defer { longestSave = nil }
        return longestSave
    }
}

extension RunFolder {
    /// Opens the run's folder on rank 0, which then holds its lock. Collective.
    static func open(
        _ path: String, _ name: String, _ resume: Resume, _ communicator: Communicator
    ) throws -> RunFolder {
        try communicator.collectively("opening \(path)") {
            guard communicator.isRoot else { return RunFolder(path) }
            return try RunFolder.open(path, name: name, resume: resume) { printLine("Note: \($0)") }
        }
    }

    /// Checks that the folder still belongs to this run, before anything is written. Collective.
    func checkLock(_ communicator: Communicator) throws {
        try communicator.collectively("checking the lock of \(path)") { try lock?.check() }
    }
}
