import Checkpointing
import Communication
import FileFormats
import Foundation
import LDMModel
import Support
import Testing
import TestSupport

@Suite struct CheckpointRoundTripTests {
    @Test(arguments: [1, 2, 3, 4, 5, 7]) func bitsComeBackFromAnyNumberOfRanks(ranks: Int) throws {
        let scratch = try ScratchFolder()
        let saved = CheckpointState(seed: 1)
        let path = try saveCheckpoint(saved, step: 40, in: CheckpointFolder(scratch.path), ranks: ranks)

        let loaded = CheckpointState()
        let checkpoint = try Checkpoint(opening: path)
        try checkpoint.verify()
        try checkpoint.load(into: loaded.buffers, loaded.table)
        #expect(loaded.bits() == saved.bits())
        #expect(checkpoint.manifest.worldSize == ranks)

        // If there are more ranks than tensors, some ranks write nothing.
        let shards = try FileManager.default.contentsOfDirectory(atPath: "\(path)/exp_avg")
            .filter { $0.hasSuffix(".safetensors") }.sorted()
        let count = saved.table.partition(over: ranks).count { !$0.isEmpty }
        #expect(shards == (0..<count).map { ModelFolder.shardName($0, of: count) })
        #expect(
            FileManager.default.fileExists(
                atPath: "\(path)/unet/diffusion_pytorch_model.safetensors.index.json") == (count > 1))
    }

    @Test func foldersOpenAsDiffusersModels() throws {
        let scratch = try ScratchFolder()
        let saved = CheckpointState(seed: 2)
        let path = try saveCheckpoint(saved, step: 1, in: CheckpointFolder(scratch.path), ranks: 2)
        let files = try WeightFiles(path: "\(path)/ema-0.9999")
        #expect(files.files.count == 2)
        #expect(files.names == CheckpointState.shapes.map(\.0).sorted())
        for entry in saved.table.entries {
            let expected = (0..<entry.count).map { saved.buffers[1].values[entry.offset + $0] }
            #expect(try files.floats(of: entry.name) == expected)
            #expect(try files.info(of: entry.name).shape == entry.shape)
        }
        #expect(
            try ConfigNode(jsonFile: "\(path)/exp_avg_sq/config.json")["_class_name"]?.found.contains(
                "UNet2D") == true)
    }

    @Test func manifestKeepsEverything() throws {
        let scratch = try ScratchFolder()
        let state = CheckpointState(seed: 3)
        let writer = try checkpointWriter(CheckpointFolder(scratch.path), state.table)
        let path = try writer.save(state.state(step: 15000))
        #expect(path == scratch.file("step-00015000"))
        let manifest = try Checkpoint(opening: path).manifest
        #expect(manifest.run == checkpointRun)
        #expect(manifest.step == 15000)
        #expect(manifest.samplesSeen == 960_000)
        #expect(manifest.parameters == state.table)
        #expect(manifest.folders == ["unet", "ema-0.9999", "exp_avg", "exp_avg_sq"])
        #expect(manifest.attemptID == writer.attemptID)
        // The folder contains only the checkpoint.
        #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.path) == ["step-00015000"])
    }

    @Test func partitionIsBalancedAndWhole() {
        let entries = (0..<100).map {
            TensorTable.Entry(name: "t\($0)", shape: [($0 * 37) % 91 + 1, 64], offset: $0 * 8192)
        }
        let table = TensorTable(entries: entries)
        for ranks in [1, 2, 3, 8] {
            let parts = table.partition(over: ranks)
            #expect(parts.count == ranks)
            #expect(parts.flatMap { $0 }.map(\.offset).sorted() == entries.map(\.offset))
            let loads = parts.map { $0.reduce(0) { $0 + $1.count } }
            let largest = entries.map(\.count).max() ?? 0
            // Tensors are not split, so a rank's load may differ from its slice by half a tensor at either
            // end.
            let slice = Double(table.flatCount) / Double(ranks)
            let inSlices = 8192.0
            for part in parts { #expect(abs(Double(part.count) * inSlices - slice) <= inSlices) }
            #expect(loads.allSatisfy { $0 <= Int(slice) + largest })
            for part in parts { #expect(part.map(\.offset) == part.map(\.offset).sorted()) }
        }
    }

    @Test func checksumIsCRC32C() {
        // RFC 3720, appendix B.4.
        #expect(CRC32C.of(Array("123456789".utf8)).text == "e3069283")
        #expect(CRC32C.of([UInt8](repeating: 0, count: 32)).text == "8a9136aa")
        #expect(CRC32C.of((0..<32).map { UInt8($0) }).text == "46dd794e")
        let bytes = (0..<1000).map { UInt8(truncatingIfNeeded: $0 * 7) }
        for cut in [0, 1, 8, 333, 999, 1000] {
            var joined = CRC32C.of(Array(bytes[..<cut]))
            joined.append(CRC32C.of(Array(bytes[cut...])))
            #expect(joined == CRC32C.of(bytes))
        }
    }
}

@Suite struct CheckpointDamageTests {
    /// Three checkpoints with different values; the newest is of step 30.
    func threeCheckpoints(_ folder: CheckpointFolder) throws -> [Int: CheckpointState] {
        var states: [Int: CheckpointState] = [:]
        for step in [10, 20, 30] {
            let state = CheckpointState(seed: UInt64(step))
            _ = try saveCheckpoint(state, step: step, in: folder, ranks: 2)
            states[step] = state
        }
        return states
    }

    private let shard = "ema-0.9999/diffusion_pytorch_model-00002-of-00002.safetensors"

    @Test(arguments: [
        ("bit", "checksum"), ("header bit", "checksum"), ("truncated", "truncated?"),
        ("missing", "does not exist"),
        ("manifest", "own checksum"), ("manifest cut", "own checksum"), ("manifest gone", "never finished"),
    ])
    func fallsBackToTheOneBefore(harm: String, word: String) throws {
        let scratch = try ScratchFolder()
        let folder = CheckpointFolder(scratch.path)
        let states = try threeCheckpoints(folder)
        let path = folder.path(step: 30)
        switch harm {
        case "bit": try flipBit("\(path)/\(shard)", at: -5)
        case "header bit": try flipBit("\(path)/\(shard)", at: 20)
        case "truncated": try cutShort("\(path)/\(shard)", by: 100)
        case "missing": try FileManager.default.removeItem(atPath: "\(path)/\(shard)")
        case "manifest": try flipBit("\(path)/manifest.json", at: 200)
        case "manifest cut": try cutShort("\(path)/manifest.json", by: 1)
        default: try FileManager.default.removeItem(atPath: "\(path)/manifest.json")
        }
        let loaded = CheckpointState()
        var warnings: [String] = []
        let checkpoint = try folder.restore(
            .auto, into: loaded.buffers, loaded.table, communicator: Communicator(),
            warn: { warnings.append($0) })
        #expect(checkpoint?.manifest.step == 20)
        #expect(loaded.bits() == states[20]?.bits())
        #expect(warnings.count == 2)
        #expect(warnings.first?.hasPrefix("skipping checkpoint step-00000030: ") == true)
        #expect(warnings.first?.contains(word) == true, "\(warnings)")
        // The damaged checkpoint has been set aside, so that its step can be saved again.
        #expect(try folder.steps() == [10, 20])
    }

    @Test func refusesWhenNoneIsWhole() throws {
        let scratch = try ScratchFolder()
        let folder = CheckpointFolder(scratch.path)
        _ = try threeCheckpoints(folder)
        for step in [10, 20, 30] { try flipBit("\(folder.path(step: step))/\(shard)", at: -1) }
        let loaded = CheckpointState()
        let error = #expect(throws: CheckpointError.self) {
            try folder.restore(
                .auto, into: loaded.buffers, loaded.table, communicator: Communicator(), warn: { _ in })
        }
        #expect(error?.message.contains("none of 3 checkpoints can be used") == true)
        #expect(error?.exitStatus == ExitStatus.refused)
        #expect(try folder.steps() == [10, 20, 30])
    }

    @Test func anotherModelIsAnErrorAndNoReasonToFallBack() throws {
        let scratch = try ScratchFolder()
        let folder = CheckpointFolder(scratch.path)
        let states = try threeCheckpoints(folder)
        let entries = try #require(states[10]).table.entries
        let table = TensorTable(
            entries: entries.dropFirst().map {
                $0.name == "mid.bias" ? TensorTable.Entry(name: $0.name, shape: [16], offset: $0.offset) : $0
            } + [TensorTable.Entry(name: "new.weight", shape: [4], offset: 4096)])
        let error = #expect(throws: CheckpointError.self) {
            try folder.restore(.auto, into: [], table, communicator: Communicator(), warn: { _ in })
        }
        let text = try #require(error).message
        #expect(text.contains("1 missing: new.weight"))
        #expect(text.contains("1 unexpected: conv_in.weight"))
        #expect(text.contains("1 misshapen: mid.bias is [32], expected [16]"))

        let state = CheckpointState(folders: ["unet", "ema-0.5"])
        let absent = #expect(throws: CheckpointError.self) {
            try folder.restore(
                .auto, into: state.buffers, state.table, communicator: Communicator(), warn: { _ in })
        }
        #expect(absent?.message.contains("expected ema-0.5") == true)
    }

    @Test func resumesFromNothingAPathOrAnotherRun() throws {
        let scratch = try ScratchFolder()
        let folder = CheckpointFolder(scratch.file("run/checkpoints"))
        let states = try threeCheckpoints(folder)
        let own = CheckpointFolder(scratch.file("other/checkpoints"))
        let loaded = CheckpointState()
        func restore(_ resume: Resume, in folder: CheckpointFolder) throws -> Int? {
            try folder.restore(
                resume, into: loaded.buffers, loaded.table, communicator: Communicator(), warn: { _ in }
            )?.manifest.step
        }
        #expect(try restore(.auto, in: own) == nil)
        #expect(try restore(.none, in: folder) == nil)
        #expect(try restore(Resume(scratch.file("run")), in: own) == 30)
        #expect(try restore(Resume(folder.path), in: own) == 30)
        #expect(try restore(Resume(folder.path(step: 10)), in: own) == 10)
        #expect(loaded.bits() == states[10]?.bits())
        #expect(throws: CheckpointError.self) { try restore(Resume(scratch.file("nowhere")), in: own) }
        #expect(throws: CheckpointError.self) { try restore(Resume(scratch.path), in: own) }
        // A run's own checkpoints take precedence over another run's.
        #expect(try restore(Resume(scratch.file("other")), in: folder) == 30)
        #expect(try restore(Resume(folder.path(step: 30)), in: folder) == 30)
        // Rolling back to an older checkpoint requires `before`; a path is rejected, since repeating the
        // command must not lose progress.
        #expect(throws: RunError.self) { try restore(Resume(folder.path(step: 10)), in: folder) }
        #expect(throws: RunError.self) { try restore(Resume("auto", before: 10), in: folder) }
        #expect(try folder.steps() == [10, 20, 30])
        // Rolling back sets the later checkpoints aside; none is deleted.
        #expect(try restore(Resume("auto", before: 20), in: folder) == 10)
        #expect(try folder.steps() == [10])
        let names = try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted()
        #expect(names.filter { $0.hasPrefix("superseded-") }.count == 2)
    }
}

extension CheckpointDamageTests {
    /// A repeated command rolls back only once.
    @Test func goingBackIsDoneOnce() throws {
        let scratch = try ScratchFolder()
        let folder = CheckpointFolder(scratch.file("run/checkpoints"))
        _ = try threeCheckpoints(folder)
        let state = CheckpointState()
        func restore(before: Int) throws -> Int? {
            try folder.restore(
                Resume("auto", before: before), into: state.buffers, state.table,
                communicator: Communicator(), warn: { _ in })?.manifest.step
        }
        #expect(try restore(before: 30) == 20)
        _ = try saveCheckpoint(CheckpointState(seed: 5), step: 30, in: folder, ranks: 1)
        #expect(try restore(before: 30) == 30)
        #expect(try restore(before: 25) == 20)
    }

    /// A checkpoint that cannot be read may be intact: it is retried, then the run ends with a storage fault,
    /// and no older checkpoint is used.
    @Test func anUnreadableCheckpointIsNotSkipped() throws {
        let scratch = try ScratchFolder()
        let folder = CheckpointFolder(scratch.file("run/checkpoints"))
        _ = try threeCheckpoints(folder)
        let state = CheckpointState()
        #expect(StorageFault.includes(CheckpointError(.inaccessible, "x", "y", code: EMFILE)))
        #expect(!StorageFault.includes(CheckpointError(.inaccessible, "x", "y", code: EACCES)))
        var warnings: [String] = []
        var reads = 0
        let error = #expect(throws: CheckpointError.self) {
            try folder.restore(
                .auto, into: state.buffers, state.table, communicator: Communicator(),
                accept: { _ in
                    reads += 1
                    throw CheckpointError(.inaccessible, "manifest.json", "reading failed", code: EIO)
                }, warn: { warnings.append($0) }, pauses: [0.01, 0.01])
        }
        #expect(error?.exitStatus == ExitStatus.storageFault)
        #expect(reads == 3 && warnings.count == 2)
        #expect(try folder.steps() == [10, 20, 30])
        // A temporary fault has no effect.
        reads = 0
        let restored = try folder.restore(
            .auto, into: state.buffers, state.table, communicator: Communicator(),
            accept: { _ in
                reads += 1
                if reads == 1 {
                    throw CheckpointError(.inaccessible, "manifest.json", "cannot be opened", code: EMFILE)
                }
            }, warn: { _ in }, pauses: [0.01])
        #expect(restored?.manifest.step == 30)
    }
}

@Suite struct CheckpointFolderTests {
    @Test func aFailedSaveIsRetriedFromTheSameCopy() throws {
        let scratch = try ScratchFolder()
        let folder = CheckpointFolder(scratch.file("checkpoints"))
        let state = CheckpointState(seed: 1)
        let saved = state.bits()
        var warnings: [String] = []
        let writer = try CheckpointWriter(
            folder: folder, table: state.table, run: checkpointRun, retention: Retention(keepLast: 3),
            communicator: Communicator(), warn: { warnings.append($0) })
        // Replace the folder with a file, so that creating folders in it fails.
        try FileManager.default.moveItem(atPath: folder.path, toPath: scratch.file("away"))
        try Data().write(to: URL(fileURLWithPath: folder.path))
        try writer.begin(state.state(step: 10))
        #expect(writer.isSaving && writer.alarm?.failures == 1)
        #expect(warnings.first?.contains("was not saved: ") == true)
        // Training continues and changes the state being saved.
        for buffer in state.buffers { buffer.values.update(repeating: 7, count: buffer.range.count) }
        try FileManager.default.removeItem(atPath: folder.path)
        try FileManager.default.moveItem(atPath: scratch.file("away"), toPath: folder.path)
        try writer.finish(within: 60)
        #expect(!writer.isSaving && writer.alarm == nil)
        #expect(warnings.last?.contains("was saved after 1 failures") == true)
        let back = CheckpointState()
        try Checkpoint(opening: folder.path(step: 10)).load(into: back.buffers, back.table)
        #expect(back.bits() == saved)
    }

    /// A checkpoint that cannot be deleted does not stop the pruning of the others. The test uses an
    /// immutable folder, if the file system and the user's permissions allow it.
    @Test func pruningContinuesAfterAFailure() throws {
        let scratch = try ScratchFolder()
        let folder = CheckpointFolder(scratch.path)
        let state = CheckpointState(folders: ["unet"], seed: 1)
        for step in [10, 20, 30, 40] { _ = try saveCheckpoint(state, step: step, in: folder, ranks: 1) }
        let stuck = folder.path(step: 10)
        func setImmutable(_ flag: String) throws -> Bool {
            let process = Process()
            process.executableURL = URL(fileURLWithPath: "/usr/bin/chattr")
            process.arguments = ["\(flag)i", stuck]
            process.standardError = FileHandle.nullDevice
            try process.run()
            process.waitUntilExit()
            return process.terminationStatus == 0
        }
        guard FileManager.default.fileExists(atPath: "/usr/bin/chattr"), try setImmutable("+") else { return }
        defer { _ = try? setImmutable("-") }
        var left: [String] = []
        #expect(try folder.prune(Retention(keepLast: 1)) { left.append($0.path) } == [20, 30])
        #expect(left == [stuck])
        #expect(try folder.steps() == [10, 40])
    }

    @Test func retentionGoesByTheStepInTheName() throws {
        let scratch = try ScratchFolder()
        let folder = CheckpointFolder(scratch.path)
        let state = CheckpointState(folders: ["unet"], seed: 1)
        let writer = try checkpointWriter(folder, state.table, keepLast: 2, keepEvery: 100)
        // Save out of order, so that the file times contradict the steps.
        for step in [250, 100, 50, 300, 200, 99_999_999, 100_000_000] {
            try writer.save(state.state(step: step))
        }
        #expect(try folder.steps() == [100, 200, 300, 99_999_999, 100_000_000])
    }

    @Test func whatIsHalfWrittenIsClearedAtTheNextStart() throws {
        let scratch = try ScratchFolder()
        let folder = CheckpointFolder(scratch.path)
        let state = CheckpointState(seed: 1)
        _ = try saveCheckpoint(state, step: 10, in: folder, ranks: 1)
        let draft = CheckpointDraft(folder: folder, step: 20, id: "dead")
        try draft.create(state.buffers.map(\.folder))
        _ = try draft.writeShards(state.buffers, state.table, rank: 0, of: 2)
        #expect(try folder.steps() == [10])
        _ = try checkpointWriter(folder, state.table)
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["step-00000010"])
    }

    @Test func aFailedSaveLeavesNothingBehind() throws {
        let scratch = try ScratchFolder()
        let folder = CheckpointFolder(scratch.path)
        let state = CheckpointState(seed: 1)
        let writer = try checkpointWriter(folder, state.table)
        try writer.save(state.state(step: 10))
        // A folder name that cannot be created.
        let bad = TrainingState(
            step: 20, samplesSeen: 0,
            buffers: state.buffers + [StateBuffer("a/b", state.buffers[0].values, state.buffers[0].range)])
        #expect(throws: SaveError.self) { try writer.save(bad) }
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path) == ["step-00000010"])
    }

    @Test func aShardLostBeforeTheCommitIsNoticed() throws {
        let scratch = try ScratchFolder()
        let folder = CheckpointFolder(scratch.path)
        let state = CheckpointState(seed: 1)
        let draft = CheckpointDraft(folder: folder, step: 20, id: "x")
        try draft.create(state.buffers.map(\.folder))
        let shards = try (0..<2).map { try draft.writeShards(state.buffers, state.table, rank: $0, of: 2) }
        try cutShort("\(draft.path)/\(shards[1][0].path)", by: 4)
        let error = #expect(throws: CheckpointError.self) {
            try commit(draft, state, shards)
        }
        #expect(error?.message.contains("expected") == true)
        #expect(try folder.steps() == [])
    }

    @Test func theSameStepIsSavedOnce() throws {
        let scratch = try ScratchFolder()
        let folder = CheckpointFolder(scratch.path)
        let state = CheckpointState(seed: 1)
        let writer = try checkpointWriter(folder, state.table)
        let first = try writer.save(state.state(step: 10))
        let manifest = try Data(contentsOf: URL(fileURLWithPath: "\(first)/manifest.json"))
        #expect(try checkpointWriter(folder, state.table).save(state.state(step: 10)) == first)
        #expect(try Data(contentsOf: URL(fileURLWithPath: "\(first)/manifest.json")) == manifest)
    }

    @Test func namesAreExact() {
        #expect(CheckpointFolder.name(step: 15000) == "step-00015000")
        #expect(CheckpointFolder.name(step: 123_456_789) == "step-123456789")
        #expect(CheckpointFolder.step(ofName: "step-00015000") == 15000)
        for name in [
            "step-15000", "step-0001500x", "step-+0015000", ".partial-00015000-ab", "superseded-00015000-ab",
        ] {
            #expect(CheckpointFolder.step(ofName: name) == nil)
        }
    }
}
