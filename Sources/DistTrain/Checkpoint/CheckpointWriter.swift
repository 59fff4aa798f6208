import Foundation
import LDMModel

/// Saves checkpoints of a run, all ranks together: whole or not at all.
public final class CheckpointWriter {
    public let folder: CheckpointFolder
    public let table: TensorTable
    public let run: RunIdentity
    public let retention: Retention
    /// This start of the run, the same on every rank.
    public let attemptID: String
    private let communicator: any Communicator

    /// Collective: the ranks agree on the attempt's name, and what an interrupted save left is cleared.
    public init(
        folder: CheckpointFolder, table: TensorTable, run: RunIdentity, retention: Retention,
        communicator: any Communicator
    ) throws {
        self.folder = folder
        self.table = table
        self.run = run
        self.retention = retention
        self.communicator = communicator
        attemptID = try communicator.fromRoot("preparing the checkpoint folder") {
            try FileManager.default.createDirectory(
                atPath: folder.path, withIntermediateDirectories: true)
            try folder.clearPartial()
            return String(UInt32.random(in: 0x1000_0000...UInt32.max), radix: 16)
        }
    }

    /// Saves the state, then deletes checkpoints that need not be kept. Collective.
    ///
    /// A step that is there already is left as it is: on one timeline the same step is the same state.
    ///
    /// - Returns: the checkpoint's path.
    /// - Throws: on every rank when any rank fails; the half-written folder is removed and older checkpoints are
    ///   as they were.
    @discardableResult
    public func save(_ state: TrainingState) throws -> String {
        let target = folder.path(step: state.step)
        let isThere = try communicator.fromRoot("looking for the checkpoint of step \(state.step)") {
            FileManager.default.fileExists(atPath: target)
        }
        if isThere { return target }

        let draft = CheckpointDraft(folder: folder, step: state.step, id: attemptID)
        do {
            try write(state, draft)
        } catch {
            // `collectively` has thrown on all ranks, so nobody writes any more.
            if communicator.isRoot { draft.discard() }
            throw error
        }
        try communicator.collectively("deleting old checkpoints") {
            if communicator.isRoot { try folder.prune(retention) }
        }
        return target
    }

    private func write(_ state: TrainingState, _ draft: CheckpointDraft) throws {
        let what = "saving the checkpoint of step \(state.step)"
        try communicator.collectively(what) {
            if communicator.isRoot { try draft.create(state.buffers) }
        }
        let own = try communicator.collectively(what) {
            try draft.writeShards(state.buffers, table, rank: communicator.rank, of: communicator.size)
        }
        let shards = try communicator.allGather(own)
        try communicator.collectively(what) {
            guard communicator.isRoot else { return }
            _ = try draft.commit(
                shards: shards, table, buffers: state.buffers, modelConfig: run.modelConfig,
                manifest: { manifest(of: state, files: $0) })
        }
    }

    private func manifest(of state: TrainingState, files: [CheckpointFile]) -> CheckpointManifest {
        CheckpointManifest(
            run: run, step: state.step, samplesSeen: state.samplesSeen, worldSize: communicator.size,
            attemptID: attemptID, savedAt: Date().timeIntervalSince1970,
            folders: state.buffers.map(\.folder), parameters: table, files: files)
    }
}
