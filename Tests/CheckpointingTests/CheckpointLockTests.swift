import Checkpointing
import Communication
import DistTrain
import Foundation
import LDMModel
import Support
import Testing
import TestSupport

/// Short timeouts, so that the tests do not take minutes.
private let quick = RunLock.Timing(interval: 0.05, grace: 0.5, patience: 0.2)

/// Tests which writes and deletions the run's lock permits.
@Suite struct CheckpointLockTests {
    private let scratch: ScratchFolder
    private var run: String { scratch.file("run") }
    private var folder: CheckpointFolder { CheckpointFolder(scratch.file("run/checkpoints")) }

    init() throws {
        scratch = try ScratchFolder()
        for step in [10, 20, 30] {
            _ = try saveCheckpoint(CheckpointState(seed: UInt64(step)), step: step, in: folder, ranks: 2)
        }
    }

    @Test func toolsDoNotTouchALiveRun() throws {
        let lock = try RunLock.take(run, timing: quick)
        defer { lock.release() }
        // Move one step away, since reshard needs a step that does not exist.
        try FileManager.default.moveItem(atPath: folder.path(step: 30), toPath: scratch.file("step-00000030"))
        let before = try FileManager.default.subpathsOfDirectory(atPath: folder.path).sorted()
        for path in [run, "\(folder.path)/"] {
            let error = #expect(throws: RunLockError.self) {
                try CheckpointPruning(run: path, Retention(keepLast: 1)).run(timing: quick) { _ in }
            }
            let message = try #require(error).message
            #expect(message.hasPrefix("\(run): is in use by another run, process \(getpid()) on "))
            #expect(message.hasSuffix("; wait for its end or stop it"), "\(message)")
            #expect(error?.exitStatus == ExitStatus.usage)
        }
        let reshard = try CheckpointReshard(
            of: scratch.file("step-00000030"), ranks: 1, output: folder.path)
        #expect(throws: RunLockError.self) { try reshard.run(timing: quick) }
        #expect(try FileManager.default.subpathsOfDirectory(atPath: folder.path).sorted() == before)
        // Read-only operations are permitted.
        let preview = try CheckpointPruning(run: run, Retention(keepLast: 1)).preview()
        #expect(preview.expired == [10] && preview.count == 2)
    }

    @Test func toolsLetGoOfTheLock() throws {
        let pruned = try CheckpointPruning(run: run, Retention(keepLast: 2)).run(timing: quick) { _ in }
        #expect(pruned.expired == [10] && pruned.count == 3)
        #expect(try folder.steps() == [20, 30])
        // The lock is also released after a failure.
        let reshard = try CheckpointReshard(
            of: folder.path(step: 20), ranks: 1, output: scratch.file("x/checkpoints"))
        _ = try reshard.run(timing: quick)
        #expect(throws: CheckpointError.self) { try reshard.run(timing: quick) }
        for path in [run, scratch.file("x")] { try RunLock.take(path, timing: quick).release() }
    }

    @Test func checkpointsOfNoRunNeedNoLock() throws {
        let copy = CheckpointFolder(scratch.file("copies"))
        try FileManager.default.copyItem(atPath: folder.path, toPath: copy.path)
        let lock = try RunLock.take(scratch.path, timing: quick)
        defer { lock.release() }
        _ = try CheckpointPruning(run: copy.path, Retention(keepLast: 1)).run(timing: quick) { _ in }
        #expect(try copy.steps() == [30])
    }

    @Test func theModelOfALiveRunIsNotReplaced() throws {
        let lock = try RunLock.take(run)
        defer { lock.release() }
        let export = CheckpointExport(
            model: run, weights: nil, firstStage: nil, format: WeightFormat(), output: "\(run)/model")
        #expect(throws: RunLockError.self) { try export.run() }
        #expect(!FileManager.default.fileExists(atPath: "\(run)/model"))
    }

    // MARK: Saving

    /// Takes the lock over as another host would after the owner was suspended: by creating the file with the
    /// next number.
    private func takeOver() throws {
        let text = """
            {"kind": "disttrain lock", "attempt_id": "b", "host": "elsewhere", "pid": 7, \
            "since": "2030-01-02T03:04:05Z", "heartbeat": 1, "heartbeat_at": "2030-01-02T03:05:05Z"}
            """
        try Data(text.utf8).write(to: URL(fileURLWithPath: "\(run)/.lock/2.json"))
    }

    @Test func aRunThatLostItsLockCommitsNothing() throws {
        let state = CheckpointState(seed: 1)
        let lock = try RunLock.take(run)
        defer { lock.release() }
        var warnings: [String] = []
        let writer = try CheckpointWriter(
            folder: folder, table: state.table, run: checkpointRun, retention: Retention(keepLast: 2),
            communicator: Communicator(), warn: { warnings.append($0) }, checkLock: { try lock.check() })
        try writer.save(state.state(step: 40))
        #expect(try folder.steps() == [30, 40])

        // The lock is lost after the save has begun.
        try writer.begin(state.state(step: 50))
        try takeOver()
        let error = #expect(throws: RunLockError.self) { try writer.finish(within: 0) }
        #expect(
            error?.message.contains("was taken over by another run, process 7 on elsewhere since") == true)
        // Nothing was renamed or deleted, and no files of this save remain.
        #expect(
            try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted()
                == ["step-00000030", "step-00000040"])
        #expect(!writer.isSaving && warnings.isEmpty)
    }

    @Test func aLockLostAtTheCommitDeletesNothing() throws {
        let state = CheckpointState(seed: 1)
        let folder = folder
        struct Lost: ReportableError {
            let message = "lost"
            let exitStatus = ExitStatus.usage
        }
        let writer = try CheckpointWriter(
            folder: folder, table: state.table, run: checkpointRun, retention: Retention(keepLast: 1),
            communicator: Communicator(), warn: { _ in },
            checkLock: {
                if try folder.steps().contains(40) { throw Lost() }
            })
        _ = try? writer.save(state.state(step: 40))
        #expect(try folder.steps() == [10, 20, 30, 40])
    }
}
