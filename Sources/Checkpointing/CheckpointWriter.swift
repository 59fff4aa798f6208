import Communication
import Foundation
import Support

/// Saves checkpoints of a run atomically, on all ranks, while training continues.
///
/// `begin` copies the state; then a thread of every rank writes that rank's files, and when all have
/// finished, a thread of rank 0 commits the checkpoint. The threads make no MPI calls: their progress is
/// piggybacked on the step's all-reduce, as the number of ranks whose thread is still running.
///
///     try writer.begin(state)                          // after a step
///     let result = try step(n, votes: StepVotes(saving: writer.working))
///     try writer.advance(result.votes.saving)           // with every step that follows
///     try writer.finish(within: 600)                   // before the program ends
///
/// A save that fails, on a full disk for example, is retried from the same copy with increasing pauses while
/// training continues, until it succeeds or a later save replaces it. Meanwhile `alarm` is set.
package final class CheckpointWriter {
    package let folder: CheckpointFolder
    /// Folder for snapshots; nil if none are written.
    package let snapshots: CheckpointFolder?
    package let table: TensorTable
    package let run: RunIdentity
    package let retention: Retention
    /// Identifies this start of the run; the same on every rank.
    package let attemptID: String
    private let communicator: Communicator
    private let warn: (String) -> Void
    private let progress: @Sendable () -> Void
    private let checkLock: @Sendable () throws -> Void
    private var snapshot: StateSnapshot?
    private var pending: Pending?
    /// Set while saves have been failing since the last successful one. The same on every rank, except for
    /// the rank whose message it quotes.
    package private(set) var alarm: Alarm?

    /// Describes a series of failed saves.
    package struct Alarm: Sendable {
        /// Number of consecutive failed attempts.
        package var failures: Int
        /// The failure of the last attempt.
        package var report: FailureReport
    }

    /// Seconds before the first retry of a failed save; the pause doubles with each further retry.
    private static let pause = (first: 1.0, longest: 300.0)
    /// Longest pause in seconds between two attempts when the run waits for its last save.
    private static let longestFinalPause = 10.0

    /// A save in progress.
    private struct Pending {
        let state: SavedState
        let folder: CheckpointFolder
        /// The rule for deleting older checkpoints in `folder` afterwards; nil to keep all of them.
        let retention: Retention?
        /// The copy of the state, kept until the save has finished.
        let copy: StateSnapshot
        var draft: CheckpointDraft
        var phase: Phase
    }

    private enum Phase {
        /// This rank writes its files.
        case writing(BackgroundJob<[CheckpointFile]>)
        /// Rank 0 commits the checkpoint; the job's value is the reason why older checkpoints could not be
        /// deleted, or empty. nil on other ranks.
        case committing(BackgroundJob<String>?)
        /// After a failure: on rank 0 the pause before the next attempt; nil on other ranks.
        case pausing(Pause?)

        var isDone: Bool {
            switch self {
            case .writing(let job): job.isDone
            case .committing(let job): job?.isDone ?? true
            case .pausing(let pause): pause?.isOver ?? true
            }
        }
    }

    /// A pause, measured by the monotonic clock.
    private struct Pause {
        let end: Double
        var isOver: Bool { monotonicSeconds() >= end }
    }

    /// The values for the manifest, captured with the state.
    private struct SavedState: Sendable {
        let step: Int
        let samplesSeen: Int
        let metric: CheckpointMetric?
        let sums: RunningSums
        let folders: [String]
    }

    /// Agrees on the attempt's id and removes what an interrupted save has left behind. Collective.
    ///
    /// - Parameters:
    ///   - warn: called on rank 0 only, with one line about a failed save; nil prints the line.
    ///   - progress: called on the writing thread after every tensor, and while waiting for a retry.
    ///   - checkLock: throws `RunLockError` if the folder no longer belongs to this run. Called on a thread
    ///     of rank 0 directly before a checkpoint is renamed to its final name and before older ones are
    ///     deleted: during a long save, another host may have taken over from a process that was suspended.
    package init(
        folder: CheckpointFolder, snapshots: CheckpointFolder? = nil, table: TensorTable, run: RunIdentity,
        retention: Retention, communicator: Communicator, warn: ((String) -> Void)? = nil,
        progress: @escaping @Sendable () -> Void = {}, checkLock: @escaping @Sendable () throws -> Void = {}
    ) throws {
        (self.folder, self.snapshots, self.table, self.run) = (folder, snapshots, table, run)
        (self.retention, self.communicator) = (retention, communicator)
        (self.progress, self.checkLock) = (progress, checkLock)
        let warn = warn ?? { printLine("Warning: \($0)") }
        self.warn = warn
        attemptID = try communicator.fromRoot("preparing the checkpoint folder") {
            for folder in [folder, snapshots].compactMap({ $0 }) {
                try FileManager.default.createDirectory(
                    atPath: folder.path, withIntermediateDirectories: true)
                try folder.clearPartial { warn("a leftover takes up disk space: \($0.message)") }
            }
            return String(UInt32.random(in: 0x1000_0000...UInt32.max), radix: 16)
        }
    }

    // MARK: Saving

    /// Copies the current state; the caller may change it as soon as this returns. Waits for a save attempt
    /// in progress; a failed save that waits for its retry is replaced by this one. Collective.
    ///
    /// A step that has been saved already is skipped: within one history the same step has the same state.
    package func begin(_ state: TrainingState) throws { try begin(state, in: folder, retention) }

    /// Saves only averages, as a snapshot. Snapshots are never deleted. Collective.
    package func beginSnapshot(_ state: TrainingState) throws {
        guard let snapshots else { preconditionFailure("no folder for snapshots") }
        try begin(state, in: snapshots, nil)
    }

    private func begin(
        _ state: TrainingState, in folder: CheckpointFolder, _ retention: Retention?
    ) throws {
        try finishAttempt()
        pending = nil
        let target = folder.path(step: state.step)
        let isThere = try communicator.fromRoot("looking for the checkpoint of step \(state.step)") {
            FileManager.default.fileExists(atPath: target)
        }
        if isThere { return }

        let folders = state.buffers.map(\.folder)
        // The copy allocated for a checkpoint can be reused for a snapshot.
        let copy: StateSnapshot
        if let snapshot, snapshot.holds(folders) {
            copy = snapshot
        } else {
            copy = StateSnapshot(table, folders: folders, rank: communicator.rank, of: communicator.size)
            snapshot = copy
        }
        try copy.capture(state.buffers, communicator)
        let saved = SavedState(
            step: state.step, samplesSeen: state.samplesSeen, metric: state.metric, sums: state.sums,
            folders: folders)
        pending = Pending(
            state: saved, folder: folder, retention: retention, copy: copy,
            draft: CheckpointDraft(folder: folder, step: state.step, id: attemptID), phase: .pausing(nil))
        try startWriting()
    }

    /// Saves the state and waits until it is committed. Collective.
    ///
    /// - Returns: the checkpoint's path.
    /// - Throws: `SaveError` if the first attempt failed.
    @discardableResult
    package func save(_ state: TrainingState) throws -> String {
        try begin(state)
        try finish(within: 0)
        return folder.path(step: state.step)
    }

    /// Whether a save is in progress or waits for its retry; the same on every rank.
    package var isSaving: Bool { pending != nil }
    /// Size of this rank's copy of the state in bytes; 0 before the first save.
    package var snapshotBytes: Int { snapshot?.byteCount ?? 0 }

    /// This rank's contribution to the step's all-reduce: 1 while its thread is running or it waits before a
    /// retry, else 0.
    package var working: Double { pending?.phase.isDone == false ? 1 : 0 }

    /// Starts the next phase of the save once all ranks have completed the current one.
    ///
    /// - Parameter working: the sum of all ranks' `working`, the same on every rank.
    /// - Throws: on all ranks, if the folder no longer belongs to this run.
    package func advance(_ working: Double) throws {
        guard working == 0, let pending else { return }
        switch pending.phase {
        case .writing(let job): try commit(job, pending)
        case .committing(let job): try complete(job, pending)
        case .pausing: try retry(pending)
        }
    }

    /// Waits until no save attempt is in progress; a failed save remains scheduled for its retry. Collective.
    package func finishAttempt() throws {
        while let pending {
            if case .pausing = pending.phase { return }
            try advanceWhenDone()
        }
    }

    /// Waits until no save is in progress and retries a failed one. Collective.
    ///
    /// - Parameter seconds: how long failed saves are retried.
    /// - Throws: `SaveError` if the last save has failed, so that the end of a run is not lost silently.
    package func finish(within seconds: Double) throws {
        let end = monotonicSeconds() + seconds
        try finishAttempt()
        while pending != nil {
            let mayRetry = try communicator.fromRoot("retrying a save") { monotonicSeconds() < end }
            guard mayRetry else { break }
            // Shorten a pause that has grown over earlier failures, since the run now waits only for the
            // save.
            if case .pausing(let pause?) = pending?.phase {
                let next = min(pause.end, monotonicSeconds() + Self.longestFinalPause, end)
                pending?.phase = .pausing(Pause(end: next))
            }
            try advanceWhenDone()
            try finishAttempt()
        }
        if pending != nil, let alarm {
            pending = nil
            throw SaveError(folder: folder.path, alarm)
        }
    }

    /// Completes a save in progress when the run ends with an error that all ranks have agreed on, since the
    /// state being saved is valid. Does nothing if not all ranks reach this call. Collective.
    ///
    /// - Parameter seconds: the maximum duration.
    package func completeAfterFailure(within seconds: Double) {
        guard pending != nil, communicator.meetsAllRanks(within: 5) else { return }
        let end = monotonicSeconds() + seconds
        do {
            while let pending {
                if case .pausing = pending.phase { return }
                while !pending.phase.isDone, monotonicSeconds() < end {
                    usleep(20_000)
                    progress()
                }
                let working = try communicator.allReduceSum(working)
                guard working == 0 else {
                    if communicator.isRoot {
                        warn(
                            "the checkpoint of step \(pending.state.step) was not saved within \(duration(seconds))"
                        )
                    }
                    return
                }
                try advance(working)
            }
        } catch {
            // Report the error that ended the run instead of this one.
        }
    }

    /// Waits until all ranks have completed the phase, then starts the next one.
    private func advanceWhenDone() throws {
        var toldAt = monotonicSeconds()
        while pending?.phase.isDone == false {
            usleep(5_000)
            if case .pausing = pending?.phase, monotonicSeconds() - toldAt > 1 {
                progress()
                toldAt = monotonicSeconds()
            }
        }
        try advance(try communicator.allReduceSum(working))
    }

    // MARK: Phases

    /// Starts writing the copy of the state. Collective.
    private func startWriting() throws {
        guard let draft = pending?.draft, let state = pending?.state, let copy = pending?.copy else { return }
        let created = try attempt("saving the checkpoint of step \(state.step)") {
            try draft.create(state.folders)
        }
        guard created else { return }
        let (rank, ranks) = (communicator.rank, communicator.size)
        pending?.phase = .writing(
            BackgroundJob(name: "checkpoint") { [table, progress] in
                // Keep `copy`, which owns the buffers' memory, alive until this thread has finished.
                try withExtendedLifetime(copy) {
                    try draft.writeShards(
                        copy.buffers(of: state.folders), table, rank: rank, of: ranks, progress: progress)
                }
            })
    }

    /// Called when every rank has written its files or failed: a thread of rank 0 commits them.
    private func commit(_ job: BackgroundJob<[CheckpointFile]>, _ pending: Pending) throws {
        let shards: [[CheckpointFile]]
        do {
            let own = try communicator.collectively("saving the checkpoint of step \(pending.state.step)") {
                try job.wait()
            }
            shards = try communicator.allGather(own)
        } catch let error as CommunicationError {
            throw error
        } catch {
            // The error was thrown on every rank, so all ranks reach this point.
            return fail(pending, FailureReport(error))
        }
        guard communicator.isRoot else {
            self.pending?.phase = .committing(nil)
            return
        }
        let manifest = CheckpointManifest(
            run: run, step: pending.state.step, samplesSeen: pending.state.samplesSeen,
            worldSize: communicator.size, attemptID: attemptID, savedAt: Date().timeIntervalSince1970,
            metric: pending.state.metric, sums: pending.state.sums, folders: pending.state.folders,
            parameters: table, files: [])
        let (draft, retention, table) = (pending.draft, pending.retention, table)
        self.pending?.phase = .committing(
            BackgroundJob(name: "checkpoint commit") { [run, checkLock] in
                try draft.complete(
                    shards: shards, table, folders: manifest.folders, modelConfig: run.modelConfig
                ) { files in
                    var whole = manifest
                    whole.files = files
                    return whole
                }
                try checkLock()
                _ = try draft.name()
                guard let retention else { return "" }
                return Self.prune(draft.folder, retention, checkLock)
            })
    }

    /// Deletes the checkpoints that the retention rule does not keep.
    ///
    /// - Returns: why some could not be deleted, which only costs space; empty if there was no problem.
    private static func prune(
        _ folder: CheckpointFolder, _ retention: Retention, _ checkLock: () throws -> Void
    ) -> String {
        do {
            try checkLock()
            var left: [String] = []
            try folder.prune(retention) { left.append($0.message) }
            return left.joined(separator: "; ")
        } catch {
            return FailureReport(error).message
        }
    }

    /// Called when rank 0 has committed the checkpoint or failed to.
    private func complete(_ job: BackgroundJob<String>?, _ pending: Pending) throws {
        let isCommitted = try attempt("saving the checkpoint of step \(pending.state.step)") {
            do {
                let left = try job?.wait() ?? ""
                if !left.isEmpty {
                    warn("an older checkpoint could not be read or deleted and takes up disk space: \(left)")
                }
            } catch let error as RunLockError {
                // The folder belongs to another run now; do not save here any more.
                pending.draft.discard()
                throw error
            }
        }
        if isCommitted { succeed(pending) }
    }

    /// Retries a failed save.
    private func retry(_ pending: Pending) throws {
        // The commit may have failed after the rename to the final name.
        let target = pending.folder.path(step: pending.state.step)
        var isNamed = false
        let done = try attempt("saving the checkpoint of step \(pending.state.step)") {
            isNamed = FileManager.default.fileExists(atPath: target)
            if isNamed { try AtomicFile.synchronizeFolder(of: target) }
        }
        guard done else { return }
        if try communicator.fromRoot("looking for the checkpoint", { isNamed }) { return succeed(pending) }
        self.pending?.draft = CheckpointDraft(
            folder: pending.folder, step: pending.state.step, id: "\(attemptID)-\(alarm?.failures ?? 0)")
        try startWriting()
    }

    /// Runs `body` on rank 0; an error counts as a failed attempt to save. Collective.
    ///
    /// - Returns: whether it succeeded, the same on every rank.
    /// - Throws: `RunLockError` and `CommunicationError`.
    private func attempt(_ what: String, _ body: () throws -> Void) throws -> Bool {
        let problems: [FailureReport]
        do {
            problems = try communicator.fromRoot(what) {
                do {
                    try body()
                    return []
                } catch let error as RunLockError {
                    throw error
                } catch {
                    return [FailureReport(error)]
                }
            }
        } catch {
            pending = nil
            throw error
        }
        guard let problem = problems.first, let pending else { return true }
        fail(pending, problem)
        return false
    }

    private func succeed(_ pending: Pending) {
        if let alarm, communicator.isRoot {
            warn("the checkpoint of step \(pending.state.step) was saved after \(alarm.failures) failures")
        }
        (alarm, self.pending) = (nil, nil)
    }

    /// Schedules the next attempt. Called on every rank.
    private func fail(_ pending: Pending, _ report: FailureReport) {
        let failures = (alarm?.failures ?? 0) + 1
        alarm = Alarm(failures: failures, report: report)
        guard communicator.isRoot else {
            self.pending?.phase = .pausing(nil)
            return
        }
        pending.draft.discard()
        let pause = min(Self.pause.longest, Self.pause.first * Double(1 << min(failures - 1, 20)))
        warn(
            "the \(pending.folder == folder ? "checkpoint" : "snapshot") of step \(pending.state.step) was not saved: "
                + "\(report.message); earlier checkpoints are intact, training continues, and the save is retried in "
                + "\(duration(pause)) (\(failures) failures in a row)")
        self.pending?.phase = .pausing(Pause(end: monotonicSeconds() + pause))
    }
}

/// The last save of a run failed.
package struct SaveError: ReportableError {
    package let message: String
    package let exitStatus: Int32

    package init(folder: String, _ alarm: CheckpointWriter.Alarm) {
        message =
            "\(folder): the last checkpoint could not be saved (\(alarm.failures) attempts): \(alarm.report.message)"
        exitStatus = alarm.report.exitStatus
    }
}
