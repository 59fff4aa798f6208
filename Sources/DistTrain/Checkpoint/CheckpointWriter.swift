import Foundation
import LDMModel

/// Saves checkpoints of a run while it goes on, all ranks together: whole or not at all.
///
/// `begin` copies the state; then a thread of every rank writes that rank's files, and when all have, a thread of
/// rank 0 commits them. The threads make no MPI call: how far they are rides on the step's own agreement, as the
/// number of ranks that still work.
///
///     try writer.begin(state)                       // after a step
///     let result = try step(step: n, riding: [writer.working])
///     try writer.settle(result.riding[0])              // with every step that follows
///     try writer.finish()                           // before the program ends
public final class CheckpointWriter {
    public let folder: CheckpointFolder
    /// Where snapshots go; nil where there are none.
    public let snapshots: CheckpointFolder?
    public let table: TensorTable
    public let run: RunIdentity
    public let retention: Retention
    /// This start of the run, the same on every rank.
    public let attemptID: String
    private let communicator: any Communicator
    private let warn: (String) -> Void
    private let checkLock: @Sendable () throws -> Void
    private var snapshot: StateSnapshot?
    private var pending: Pending?
    private var failuresInARow = 0
    private var lastProblem: String?

    /// Saves that may fail one after the other before the run stops.
    public static let failuresAllowed = 3

    /// A save under way.
    private struct Pending {
        let draft: CheckpointDraft
        /// What of the draft's folder is deleted afterwards; nil for nothing.
        let retention: Retention?
        let state: SavedState
        /// First this rank's files; nil once they have been handed in.
        var writing: BackgroundJob<[CheckpointFile]>?
        /// Then, on rank 0 alone, the commit; its value is why older checkpoints could not be deleted, or empty.
        var committing: BackgroundJob<String>?
    }

    /// What the manifest tells of the state.
    private struct SavedState: Sendable {
        let step: Int
        let samplesSeen: Int
        let metric: CheckpointMetric?
        let sums: RunningSums
        let folders: [String]
    }

    /// Collective: the ranks agree on the attempt's name, and what an interrupted save left is cleared.
    ///
    /// - Parameters:
    ///   - warn: told of saves that failed, on rank 0 alone; nil prints them.
    ///   - checkLock: throws `RunLockError` where the folder is no longer this run's. Asked on a thread of rank 0 just
    ///     before a checkpoint gets its name, and before older ones are deleted: a save takes long, and by then another
    ///     host may have taken over from a process that stood still.
    public init(
        folder: CheckpointFolder, snapshots: CheckpointFolder? = nil, table: TensorTable, run: RunIdentity,
        retention: Retention, communicator: any Communicator, warn: ((String) -> Void)? = nil,
        checkLock: @escaping @Sendable () throws -> Void = {}
    ) throws {
        self.folder = folder
        self.snapshots = snapshots
        self.table = table
        self.run = run
        self.retention = retention
        self.communicator = communicator
        self.checkLock = checkLock
        self.warn = warn ?? { printLine("Warning: \($0)") }
        attemptID = try communicator.fromRoot("preparing the checkpoint folder") {
            for folder in [folder, snapshots].compactMap({ $0 }) {
                try FileManager.default.createDirectory(
                    atPath: folder.path, withIntermediateDirectories: true)
                try folder.clearPartial()
            }
            return String(UInt32.random(in: 0x1000_0000...UInt32.max), radix: 16)
        }
    }

    // MARK: Saving

    /// Takes the state as it is now; the caller may change it as soon as this returns. Waits for a save that is still
    /// under way. Collective.
    ///
    /// A step that is there already is left as it is: on one timeline the same step is the same state.
    public func begin(_ state: TrainingState) throws { try begin(state, in: folder, retention) }

    /// The same for averages alone, as a snapshot; all of them stay. Collective.
    public func beginSnapshot(_ state: TrainingState) throws {
        guard let snapshots else { preconditionFailure("no folder for snapshots") }
        try begin(state, in: snapshots, nil)
    }

    private func begin(
        _ state: TrainingState, in folder: CheckpointFolder, _ retention: Retention?
    ) throws {
        try finish()
        let target = folder.path(step: state.step)
        let isThere = try communicator.fromRoot("looking for the checkpoint of step \(state.step)") {
            FileManager.default.fileExists(atPath: target)
        }
        if isThere { return }

        let folders = state.buffers.map(\.folder)
        let draft = CheckpointDraft(folder: folder, step: state.step, id: attemptID)
        let saved = SavedState(
            step: state.step, samplesSeen: state.samplesSeen, metric: state.metric, sums: state.sums,
            folders: folders)
        let problem = try communicator.fromRoot("saving the checkpoint of step \(state.step)") {
            do {
                try draft.create(folders)
                return ""
            } catch {
                return FailureReport(error).message
            }
        }
        guard problem.isEmpty else { return try settle(saved, draft, problem) }

        let (rank, ranks) = (communicator.rank, communicator.size)
        // A checkpoint's copy serves for a snapshot, too.
        if snapshot?.holds(folders) != true {
            snapshot = StateSnapshot(table, folders: folders, rank: rank, of: ranks)
        }
        // The copy stays as it is until `begin` captures again, after `finish`.
        nonisolated(unsafe) let buffers = try snapshot?.capture(state.buffers, communicator) ?? []
        pending = Pending(
            draft: draft, retention: retention, state: saved,
            writing: BackgroundJob(name: "checkpoint") { [table] in
                try draft.writeShards(buffers, table, rank: rank, of: ranks)
            })
    }

    /// Saves the state and waits until it is committed. Collective.
    ///
    /// - Returns: the checkpoint's path.
    /// - Throws: also where this save alone failed.
    @discardableResult
    public func save(_ state: TrainingState) throws -> String {
        try begin(state)
        try finish()
        try expectSaved()
        return folder.path(step: state.step)
    }

    /// - Throws: where the last save failed: the end of a run may not be lost in silence.
    public func expectSaved() throws {
        guard let lastProblem else { return }
        throw CheckpointError(
            .inaccessible, folder.path, "the last checkpoint could not be saved: \(lastProblem)")
    }

    /// Whether a save is under way; the same on every rank.
    public var isSaving: Bool { pending != nil }
    /// Bytes of this rank's copy of the state; 0 before the first save.
    var snapshotBytes: Int { snapshot?.byteCount ?? 0 }

    /// 1 while this rank's thread is at work, else 0: what it brings to the step's agreement.
    public var working: Double {
        if let job = pending?.writing { return job.isDone ? 0 : 1 }
        if let job = pending?.committing { return job.isDone ? 0 : 1 }
        return 0
    }

    /// Goes on with the save where all ranks have come to the end of a phase.
    ///
    /// - Parameter working: the sum of all ranks' `working`, the same on every rank.
    /// - Throws: on all ranks, when too many saves have failed in a row, or the folder is no longer this run's.
    public func settle(_ working: Double) throws {
        guard working == 0, var pending else { return }
        if let job = pending.writing {
            pending.writing = nil
            self.pending = pending
            try handIn(job, pending)
        } else {
            self.pending = nil
            let problem = try communicator.fromRoot("saving the checkpoint of step \(pending.state.step)") {
                do {
                    let left = try pending.committing?.wait() ?? ""
                    if !left.isEmpty {
                        warn("an older checkpoint could not be read or deleted and takes space: \(left)")
                    }
                    return ""
                } catch let error as RunLockError {
                    // Nothing is to be saved here any more; what was begun goes.
                    pending.draft.discard()
                    throw error
                } catch {
                    return FailureReport(error).message
                }
            }
            try settle(pending.state, pending.draft, problem)
        }
    }

    /// Waits until no save is under way. Collective.
    public func finish() throws {
        while let pending {
            // Their results are asked for by `settle`.
            _ = try? pending.writing?.wait()
            _ = try? pending.committing?.wait()
            try settle(try communicator.allReduceSum(working))
        }
    }

    // MARK: Phases

    /// All files are written, or not: the ranks tell rank 0, whose thread commits them.
    private func handIn(_ job: BackgroundJob<[CheckpointFile]>, _ pending: Pending) throws {
        let shards: [[CheckpointFile]]
        do {
            let own = try communicator.collectively("saving the checkpoint of step \(pending.state.step)") {
                try job.wait()
            }
            shards = try communicator.allGather(own)
        } catch let error as CommunicationError {
            throw error
        } catch {
            // Every rank is here. Rank 0's word is the same as the others', with the rank that failed.
            self.pending = nil
            return try settle(pending.state, pending.draft, FailureReport(error).message)
        }
        guard communicator.isRoot else { return }
        let manifest = CheckpointManifest(
            run: run, step: pending.state.step, samplesSeen: pending.state.samplesSeen,
            worldSize: communicator.size, attemptID: attemptID, savedAt: Date().timeIntervalSince1970,
            metric: pending.state.metric, sums: pending.state.sums, folders: pending.state.folders,
            parameters: table, files: [])
        let (draft, retention, table) = (pending.draft, pending.retention, table)
        self.pending?.committing = BackgroundJob(name: "checkpoint commit") { [run, checkLock] in
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
            try checkLock()
            // A checkpoint that cannot be deleted costs space, and no step of training.
            do {
                var left: [String] = []
                try draft.folder.prune(retention) { left.append($0.message) }
                return left.joined(separator: "; ")
            } catch {
                return FailureReport(error).message
            }
        }
    }

    /// Counts what has become of a save. `problem` is empty where there was none, on every rank alike.
    private func settle(_ state: SavedState, _ draft: CheckpointDraft, _ problem: String) throws {
        guard !problem.isEmpty else {
            (failuresInARow, lastProblem) = (0, nil)
            return
        }
        (failuresInARow, lastProblem) = (failuresInARow + 1, problem)
        if communicator.isRoot {
            draft.discard()
            warn(
                "the \(draft.folder == folder ? "checkpoint" : "snapshot") of step \(state.step) was not saved: "
                    + "\(problem); earlier ones are as they were, and training goes on (\(failuresInARow) of \(Self.failuresAllowed) failures in a row)"
            )
        }
        guard failuresInARow < Self.failuresAllowed else {
            throw CheckpointError(
                .inaccessible, folder.path,
                "\(failuresInARow) checkpoints in a row could not be saved, the last because: \(problem)")
        }
    }
}
