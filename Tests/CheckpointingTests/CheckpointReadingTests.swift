import Checkpointing
import Communication
import Foundation
import LDMModel
import Support
import Testing
import TestSupport

@Suite struct CheckpointReadingTests {
    /// The slices of a flat buffer over `ranks` ranks, with boundaries anywhere within or between tensors.
    private func slices(_ count: Int, _ ranks: Int) -> [Range<Int>] {
        (0..<ranks).map { count * $0 / ranks..<count * ($0 + 1) / ranks }
    }

    @Test(arguments: [1, 2, 3, 4], [1, 2, 3, 4, 7, 60])
    func slicesOfAnyNumberOfRanksComeTogether(saved: Int, loaded: Int) throws {
        let scratch = try ScratchFolder()
        let state = CheckpointState(seed: 9)
        let path = try saveCheckpoint(state, step: 1, in: CheckpointFolder(scratch.path), ranks: saved)
        let checkpoint = try Checkpoint(opening: path)
        for buffer in state.buffers {
            for range in slices(state.count, loaded) {
                // Two extra elements on each side, which must not be modified.
                let values = UnsafeMutablePointer<Float>.allocate(capacity: range.count + 4)
                defer { values.deallocate() }
                values.initialize(repeating: .nan, count: range.count + 4)
                try checkpoint.read(folder: buffer.folder, range: range, table: state.table, into: values + 2)
                let isTensor = Set(state.table.entries.flatMap { Array($0.range) })
                for (index, element) in range.enumerated() {
                    let expected = isTensor.contains(element) ? buffer.values[element] : 0
                    #expect(
                        values[2 + index].bitPattern == expected.bitPattern, "\(buffer.folder) \(element)")
                }
                for edge in [0, 1, range.count + 2, range.count + 3] { #expect(values[edge].isNaN) }
            }
        }
    }

    @Test func offsetsAreTheReadersOwn() throws {
        let scratch = try ScratchFolder()
        let state = CheckpointState(folders: ["unet"], seed: 9)
        let path = try saveCheckpoint(state, step: 1, in: CheckpointFolder(scratch.path), ranks: 2)
        // The memory layout of another program: without padding and in another order.
        var offset = 3
        let table = TensorTable(
            entries: state.table.entries.reversed().map { entry in
                defer { offset += entry.count }
                return TensorTable.Entry(name: entry.name, shape: entry.shape, offset: offset)
            })
        let values = UnsafeMutablePointer<Float>.allocate(capacity: offset)
        defer { values.deallocate() }
        values.initialize(repeating: .nan, count: offset)
        try Checkpoint(opening: path).read(folder: "unet", range: 0..<offset, table: table, into: values)
        for (entry, there) in zip(state.table.entries, table.entries.reversed()) {
            for index in 0..<entry.count {
                #expect(
                    values[there.offset + index].bitPattern
                        == state.buffers[0].values[entry.offset + index].bitPattern)
            }
        }
        #expect((values[0], values[1], values[2]) == (0, 0, 0))
    }

    @Test func whatTheCheckpointDoesNotHoldIsRefused() throws {
        let scratch = try ScratchFolder()
        let state = CheckpointState(folders: ["unet"], seed: 9)
        let path = try saveCheckpoint(state, step: 1, in: CheckpointFolder(scratch.path), ranks: 2)
        let checkpoint = try Checkpoint(opening: path)
        let more = TensorTable(
            entries: state.table.entries + [TensorTable.Entry(name: "new", shape: [4], offset: state.count)])
        let other = TensorTable(
            entries: state.table.entries.map {
                TensorTable.Entry(
                    name: $0.name, shape: $0.name == "mid.bias" ? [4, 8] : $0.shape, offset: $0.offset)
            })
        let values = UnsafeMutablePointer<Float>.allocate(capacity: more.flatCount)
        defer { values.deallocate() }
        values.initialize(repeating: 0, count: more.flatCount)
        func read(_ folder: String, _ table: TensorTable) throws {
            try checkpoint.read(folder: folder, range: 0..<table.flatCount, table: table, into: values)
        }
        for (folder, table, word) in [
            ("unet", more, "lacks 1 tensors, first 'new'"),
            ("unet", other, "'mid.bias' is [32], expected [4, 8]"),
            ("ema-0.9", state.table, "lacks 5 tensors"),
        ] {
            let error = #expect(throws: CheckpointError.self) { try read(folder, table) }
            #expect(error?.kind == .incompatible)
            #expect(error?.message.contains(word) == true, "\(error?.message ?? "")")
        }
        // Tensors outside the range are not required.
        #expect(throws: Never.self) {
            try checkpoint.read(folder: "unet", range: 0..<8, table: more, into: values)
        }
    }

    @Test func aFileCutShortWhileItIsOpenIsAnErrorAndNoSignal() throws {
        let scratch = try ScratchFolder()
        let state = CheckpointState(folders: ["unet"], seed: 9)
        let path = try saveCheckpoint(state, step: 1, in: CheckpointFolder(scratch.path), ranks: 1)
        let checkpoint = try Checkpoint(opening: path)
        try cutShort("\(path)/unet/diffusion_pytorch_model.safetensors", by: 8)
        let error = #expect(throws: CheckpointError.self) {
            try checkpoint.read(
                folder: "unet", range: 0..<state.count, table: state.table, into: state.buffers[0].values)
        }
        #expect(error?.message.contains("truncated") == true)
        #expect(throws: CheckpointError.self) { try checkpoint.verify() }
    }
}

@Suite struct CheckpointVerificationTests {
    private let shard = "exp_avg/diffusion_pytorch_model-00002-of-00003.safetensors"

    @Test(arguments: [1, 2, 3, 8, 1000]) func ranksShareTheBytes(ranks: Int) throws {
        let scratch = try ScratchFolder()
        let path = try saveCheckpoint(
            CheckpointState(seed: 4), step: 1, in: CheckpointFolder(scratch.path), ranks: 3)
        let checkpoint = try Checkpoint(opening: path)
        let shares = checkpoint.verificationParts(over: ranks)
        #expect(shares.count == ranks)
        #expect(shares.flatMap { $0 } == checkpoint.parts)
        let bytes = shares.map { $0.reduce(0) { $0 + $1.bytes } }
        #expect(bytes.reduce(0, +) == checkpoint.manifest.files.reduce(0) { $0 + $1.bytes })
        let largest = checkpoint.parts.map(\.bytes).max() ?? 0
        for count in bytes { #expect(count <= bytes.reduce(0, +) / ranks + largest) }
        for share in shares { try checkpoint.verify(share) }
    }

    /// Changes bytes throughout the checkpoint and checks that exactly one part detects each change.
    @Test func everyByteIsCovered() throws {
        let scratch = try ScratchFolder()
        let path = try saveCheckpoint(
            CheckpointState(folders: ["unet", "exp_avg"], seed: 4), step: 1,
            in: CheckpointFolder(scratch.path),
            ranks: 3)
        let checkpoint = try Checkpoint(opening: path)
        for file in checkpoint.manifest.files {
            for offset in stride(from: 0, to: file.bytes, by: file.bytes > 400 ? 37 : 5) {
                try flipBit("\(path)/\(file.path)", at: offset)
                var found = 0
                for part in checkpoint.parts {
                    do { try checkpoint.verify(part) } catch {
                        found += 1
                        #expect(error.message.contains(file.path))
                        #expect(error.kind == .damaged)
                    }
                }
                #expect(found == 1, "\(file.path) byte \(offset)")
                try flipBit("\(path)/\(file.path)", at: offset)
            }
        }
        try checkpoint.verify()
    }

    @Test func aDamagedTensorIsNamed() throws {
        let scratch = try ScratchFolder()
        let path = try saveCheckpoint(
            CheckpointState(seed: 4), step: 1, in: CheckpointFolder(scratch.path), ranks: 3)
        let checkpoint = try Checkpoint(opening: path)
        let file = try #require(checkpoint.manifest.files.first { $0.path == shard })
        try flipBit("\(path)/\(shard)", at: -1)
        let error = #expect(throws: CheckpointError.self) { try checkpoint.verify() }
        let last = try #require(file.tensors.last)
        #expect(error?.message.contains("tensor '\(last.name)' has checksum") == true)
        #expect(throws: CheckpointError.self) { try checkpoint.verify(folder: "exp_avg") }
        #expect(throws: Never.self) { try checkpoint.verify(folder: "unet") }
    }

    @Test(arguments: ["step", "run", "link", "folder", "pipe", "link to a folder"])
    func aFileFromElsewhereIsRefused(source: String) throws {
        let scratch = try ScratchFolder()
        let folder = CheckpointFolder(scratch.file("a"))
        let older = CheckpointState(seed: 1)
        _ = try saveCheckpoint(older, step: 10, in: folder, ranks: 3)
        let path = try saveCheckpoint(CheckpointState(seed: 2), step: 20, in: folder, ranks: 3)
        let other = try saveCheckpoint(
            CheckpointState(seed: 3), step: 20, in: CheckpointFolder(scratch.file("b")), ranks: 3)
        let manager = FileManager.default
        try manager.removeItem(atPath: "\(path)/\(shard)")
        switch source {
        case "step":
            try manager.copyItem(atPath: "\(folder.path(step: 10))/\(shard)", toPath: "\(path)/\(shard)")
        case "run": try manager.copyItem(atPath: "\(other)/\(shard)", toPath: "\(path)/\(shard)")
        case "link":
            try manager.createSymbolicLink(
                atPath: "\(path)/\(shard)", withDestinationPath: "\(other)/\(shard)")
        case "folder":
            try manager.createDirectory(atPath: "\(path)/\(shard)", withIntermediateDirectories: false)
        case "pipe": #expect(mkfifo("\(path)/\(shard)", 0o600) == 0)
        default:
            try manager.removeItem(atPath: "\(path)/exp_avg")
            try manager.createSymbolicLink(atPath: "\(path)/exp_avg", withDestinationPath: "\(other)/exp_avg")
        }
        var warnings: [String] = []
        let loaded = CheckpointState()
        let checkpoint = try folder.restore(
            .auto, into: loaded.buffers, loaded.table, communicator: Communicator(),
            warn: { warnings.append($0) })
        #expect(checkpoint?.manifest.step == 10)
        #expect(loaded.bits() == older.bits())
        #expect(warnings.first?.contains("exp_avg") == true, "\(warnings)")
    }

    @Test func aNewerVersionIsAnErrorAndNoReasonToFallBack() throws {
        let scratch = try ScratchFolder()
        let folder = CheckpointFolder(scratch.path)
        for step in [10, 20] {
            _ = try saveCheckpoint(CheckpointState(seed: 1), step: step, in: folder, ranks: 2)
        }
        try rewriteManifest(of: folder.path(step: 20), "\"format_version\": 2", with: "\"format_version\": 7")
        let loaded = CheckpointState()
        let error = #expect(throws: CheckpointError.self) {
            try folder.restore(
                .auto, into: loaded.buffers, loaded.table, communicator: Communicator(), warn: { _ in })
        }
        #expect(
            error?.message.contains("format version 7, expected 2; use the program that wrote it") == true)
        #expect(try folder.steps() == [10, 20])
    }

    @Test func whoSamplesRefusesANewerVersionInTheSameWords() throws {
        let scratch = try ScratchFolder()
        let folder = CheckpointFolder(scratch.file("run/checkpoints"))
        let path = try saveCheckpoint(CheckpointState(seed: 1), step: 10, in: folder, ranks: 1)
        try rewriteManifest(of: path, "\"format_version\": 2", with: "\"format_version\": 7")
        let training = #expect(throws: CheckpointError.self) { try Checkpoint(opening: path) }
        #expect(training?.detail == "has format version 7, expected 2; use the program that wrote it")
        // Open it as a run, as a checkpoint, and as a weight folder in the checkpoint.
        for place in [scratch.file("run"), path, "\(path)/ema-0.9999"] {
            let sampling = #expect(throws: CheckpointError.self) { try PipelineFolder.read(place) }
            #expect(sampling?.message == training?.message)
            #expect(sampling?.exitStatus == training?.exitStatus)
        }
        #expect(throws: CheckpointError.self) { try PipelineFolder.locateUNet(path) }
        #expect(throws: CheckpointError.self) { try PipelineFolder.trainedAutoencoder(path) }
    }

    @Test func aWholeCheckpointUnderAnotherStepsNameIsPassedOver() throws {
        let scratch = try ScratchFolder()
        let folder = CheckpointFolder(scratch.path)
        _ = try saveCheckpoint(CheckpointState(seed: 1), step: 10, in: folder, ranks: 2)
        try FileManager.default.copyItem(atPath: folder.path(step: 10), toPath: folder.path(step: 90))
        var warnings: [String] = []
        let loaded = CheckpointState()
        let checkpoint = try folder.restore(
            .auto, into: loaded.buffers, loaded.table, communicator: Communicator(),
            warn: { warnings.append($0) })
        #expect(checkpoint?.manifest.step == 10)
        #expect(warnings.first?.contains("has step 10 in its manifest, but step 90 in its name") == true)
    }
}
