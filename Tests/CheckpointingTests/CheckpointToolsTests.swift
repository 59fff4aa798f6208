import Checkpointing
import Foundation
import Support
import Testing
import TestSupport

@Suite struct CheckpointToolsTests {
    private let shard = "diffusion_pytorch_model-00002-of-00002.safetensors"

    /// A run with checkpoints of these steps, written by 2 ranks.
    private func run(_ scratch: ScratchFolder, _ steps: [Int] = [10, 20]) throws -> CheckpointFolder {
        let folder = CheckpointFolder(scratch.file("run/checkpoints"))
        for step in steps {
            _ = try saveCheckpoint(CheckpointState(seed: UInt64(step)), step: step, in: folder, ranks: 2)
        }
        return folder
    }

    private func refusal(_ body: () throws -> Void) -> String {
        let error = #expect(throws: CheckpointError.self) { try body() }
        #expect(error?.exitStatus == ExitStatus.refused)
        return error?.message ?? ""
    }

    // MARK: Listing and verification

    @Test func listTellsWhatIsWhole() throws {
        let scratch = try ScratchFolder()
        let folder = try run(scratch, [10, 20, 30, 100_000_000])
        try cutShort("\(folder.path(step: 20))/exp_avg/\(shard)", by: 1)
        try FileManager.default.removeItem(atPath: "\(folder.path(step: 30))/manifest.json")
        try FileManager.default.createDirectory(
            atPath: folder.partialPath(step: 40, id: "dead"), withIntermediateDirectories: false)
        for path in [scratch.file("run"), folder.path, scratch.file("run/")] {
            let lines = try CheckpointList(run: path).lines()
            #expect(lines.count == 6)
            #expect(lines[0].hasPrefix("step "))
            #expect(lines[1].hasPrefix("10 ") && lines[1].hasSuffix("complete"))
            #expect(lines[2].contains("damaged: exp_avg/\(shard): is "))
            #expect(lines[3].contains("never finished"))
            #expect(lines[4].hasPrefix("100000000  1970-01-0"))
            #expect(lines[5].hasPrefix(".partial-00000040-dead: "))
        }
        #expect(
            refusal { _ = try CheckpointList(run: scratch.file("gone")) }.contains(
                "does not exist; expected a run's"))
        #expect(refusal { _ = try CheckpointList(run: scratch.path) }.contains("holds no checkpoint"))
        try FileManager.default.createDirectory(
            atPath: scratch.file("new/checkpoints"), withIntermediateDirectories: true)
        #expect(try CheckpointList(run: scratch.file("new")).lines()[0].hasSuffix("no checkpoints yet"))
    }

    @Test func inspectTellsOfTheNewest() throws {
        let scratch = try ScratchFolder()
        let folder = try run(scratch)
        let summary = try CheckpointSummary(of: scratch.file("run"))
        #expect(summary.lines()[0] == folder.path(step: 20))
        let text = summary.lines().joined(separator: "\n")
        for fact in [
            "tiny, seed 18446744073709551615", "20, after 1280 samples", "608 parameters in 5 tensors",
        ] {
            #expect(text.contains(fact), "\(text)")
        }
        #expect(
            try summary.json()
                == String(contentsOfFile: "\(folder.path(step: 20))/manifest.json", encoding: .utf8))
        let older = try CheckpointSummary(of: folder.path(step: 10))
        #expect(try JSONValue(parsing: Array(older.json().utf8)[...])["step"] == .integer(10))
    }

    @Test func verifyNamesEachFault() throws {
        let scratch = try ScratchFolder()
        let folder = try run(scratch, [10, 20, 30])
        var lines: [String] = []
        try CheckpointAudit(of: scratch.file("run")).run { lines.append($0) }
        #expect(lines.count == 3 && lines.allSatisfy { $0.contains(": intact, 16 files") }, "\(lines)")

        let bad = folder.path(step: 20)
        try flipBit("\(bad)/unet/\(shard)", at: -1)
        try flipBit("\(bad)/exp_avg/\(shard)", at: 20)
        try flipBit("\(bad)/exp_avg/config.json", at: 3)
        try cutShort("\(bad)/exp_avg_sq/\(shard)", by: 4)
        try FileManager.default.removeItem(atPath: "\(bad)/ema-0.9999")
        try cutShort("\(folder.path(step: 30))/manifest.json", by: 1)
        lines = []
        let message = refusal { try CheckpointAudit(of: scratch.file("run")).run { lines.append($0) } }
        #expect(message == "\(scratch.file("run")): 2 of 3 checkpoints are damaged")
        let expected = [
            "step-00000010: intact",
            "step-00000020: ema-0.9999: is in the manifest, but no such folder exists",
            "step-00000020: exp_avg_sq/\(shard): is ",
            "step-00000020: exp_avg/\(shard): the file, computed from its header,",
            "step-00000020: unet/\(shard): tensor '",
            "step-00000020: exp_avg/config.json: the file has checksum",
            "step-00000030: manifest.json: does not match its own checksum",
        ]
        #expect(lines.count == expected.count, "\(lines)")
        for (line, start) in zip(lines, expected) { #expect(line.hasPrefix(start), "\(line)") }
        #expect(refusal { try CheckpointAudit(of: bad).run { _ in } } == "\(bad): is damaged")
        try CheckpointAudit(of: folder.path(step: 10)).run { _ in }
    }

    // MARK: Comparison

    private func difference(_ a: String, _ b: String) throws -> [String] {
        var lines: [String] = []
        try CheckpointComparison(a, b).run { lines.append($0) }
        return lines
    }

    @Test func diffNamesWhatDiffersMost() throws {
        let scratch = try ScratchFolder()
        let state = CheckpointState(seed: 1)
        let a = try saveCheckpoint(state, step: 10, in: CheckpointFolder(scratch.file("a")), ranks: 2)
        let bias = try #require(state.table.entries.first { $0.name == "mid.bias" })
        let weight = try #require(state.table.entries.first { $0.name == "mid.weight" })
        for index in bias.range { state.buffers[0].values[index] *= 2 }
        state.buffers[0].values[weight.offset] += 0.25
        state.buffers[2].values[weight.offset] = .nan
        let b = try saveCheckpoint(state, step: 20, in: CheckpointFolder(scratch.file("b")), ranks: 3)

        #expect(
            try difference(a, a) == ["A  \(a)", "B  \(a)", "configuration: the same"]
                + state.buffers.map { "\($0.folder): 5 of 5 tensors are bit-identical" })
        let lines = try difference(scratch.file("a"), b)
        #expect(lines.contains("step: 10 → 20"))
        #expect(lines.contains("ranks: 2 → 3"))
        let unet = try #require(
            lines.firstIndex { $0.hasPrefix("unet: 3 of 5 tensors are bit-identical; largest ") })
        #expect(lines[unet + 1].hasPrefix("  mid.bias    [32]     largest "))
        #expect(lines[unet + 1].hasSuffix("relative 1.00e+00"))
        #expect(lines[unet + 2].hasPrefix("  mid.weight  [32, 8]  largest 2.50e-01"))
        #expect(lines.contains("exp_avg: 4 of 5 tensors are bit-identical; largest inf, relative inf"))
        #expect(lines.contains { $0.hasPrefix("  mid.weight") && $0.contains("largest inf") })
    }

    @Test func diffTellsOfOtherTensorsAndFolders() throws {
        let scratch = try ScratchFolder()
        let state = CheckpointState(folders: ["unet", "ema-0.5"], seed: 1)
        let a = try saveCheckpoint(state, step: 10, in: CheckpointFolder(scratch.file("a")), ranks: 2)
        let other = CheckpointState(folders: ["unet", "ema-0.9"], seed: 1)
        let table = TensorTable(
            entries: other.table.entries.dropFirst().map {
                TensorTable.Entry(
                    name: $0.name, shape: $0.name == "mid.bias" ? [8, 4] : $0.shape, offset: $0.offset)
            })
        let folder = CheckpointFolder(scratch.file("b"))
        try FileManager.default.createDirectory(atPath: folder.path, withIntermediateDirectories: true)
        let writer = try checkpointWriter(folder, table)
        let b = try writer.save(other.state(step: 10))
        let lines = try difference(a, b)
        for line in [
            "  conv_in.weight is only in A", "  mid.bias is [32] in A, [8, 4] in B", "ema-0.5: only in A",
            "ema-0.9: only in B", "unet: 3 of 3 tensors are bit-identical",
        ] { #expect(lines.contains(line), "\(lines)") }
    }

    @Test func diffRefusesDamagedValues() throws {
        let scratch = try ScratchFolder()
        let folder = try run(scratch)
        try flipBit("\(folder.path(step: 20))/exp_avg/\(shard)", at: -1)
        let message = refusal { _ = try difference(folder.path(step: 10), folder.path(step: 20)) }
        #expect(message.contains("step-00000020/exp_avg/\(shard): tensor '"))
    }

    @Test func configurationsAreComparedKeyByKey() throws {
        let old =
            "name: a\noptimizer: {learning_rate: 1e-3, betas: [0.9, 0.999]}\nema: {decays: [0.9]}\nx: {}\n"
        let new = "name: a\noptimizer: {learning_rate: 0.001, betas: [0.9, 0.99], eps: 1e-8}\nx: {}\n"
        let found = try ConfigurationDifference.all(from: old, to: new)
        #expect(found.map(\.key) == ["optimizer.betas", "ema.decays", "optimizer.eps"])
        #expect(found.map(\.old) == ["[0.9,0.999]", "[0.9]", nil])
        #expect(found.map(\.new) == ["[0.9,0.99]", nil, "1e-08"])
        #expect(try ConfigurationDifference.all(from: new, to: new) == [])
    }

    // MARK: Resharding and paths

    @Test(arguments: [1, 2, 3, 7]) func reshardWritesWhatSoManyRanksWouldHave(ranks: Int) throws {
        let scratch = try ScratchFolder()
        let state = CheckpointState(seed: 5)
        let source = try saveCheckpoint(state, step: 10, in: CheckpointFolder(scratch.file("a")), ranks: 2)
        let expected = try saveCheckpoint(
            state, step: 10, in: CheckpointFolder(scratch.file("b")), ranks: ranks)
        let made = try CheckpointReshard(of: source, ranks: ranks, output: scratch.file("c/d")).run()
        #expect(made == scratch.file("c/d/step-00000010"))
        #expect(
            try FileManager.default.subpathsOfDirectory(atPath: scratch.file("c/d")).sorted().first
                == "step-00000010")
        let names = try FileManager.default.subpathsOfDirectory(atPath: expected).sorted()
        #expect(try FileManager.default.subpathsOfDirectory(atPath: made).sorted() == names)
        for name in names {
            #expect(
                FileManager.default.contentsEqual(atPath: "\(expected)/\(name)", andPath: "\(made)/\(name)"),
                "\(name)")
        }
        let loaded = CheckpointState()
        try Checkpoint(opening: made).load(into: loaded.buffers, loaded.table)
        #expect(loaded.bits() == state.bits())
        #expect(
            refusal { _ = try CheckpointReshard(of: source, ranks: ranks, output: scratch.file("c/d")).run() }
                .contains("exists already"))
    }

    @Test(arguments: [-1, 20, 3]) func reshardDoesNotSpreadDamage(offset: Int) throws {
        let scratch = try ScratchFolder()
        let folder = try run(scratch, [10])
        let file = offset == 3 ? "config.json" : shard
        try flipBit("\(folder.path(step: 10))/exp_avg_sq/\(file)", at: offset)
        let message = refusal {
            _ = try CheckpointReshard(of: folder.path, ranks: 1, output: scratch.file("c")).run()
        }
        #expect(message.contains("exp_avg_sq/\(file): ") && message.contains("checksum"), "\(message)")
        #expect((try? FileManager.default.contentsOfDirectory(atPath: scratch.file("c"))) ?? [] == [])
    }

    @Test func aRunsCheckpointsAreFoundByAnyOfTheirPaths() throws {
        let scratch = try ScratchFolder()
        let folder = try run(scratch)
        for path in [scratch.file("run"), folder.path, folder.path(step: 20), folder.path(step: 20) + "/"] {
            #expect(try Checkpoint.newest(at: path).manifest.step == 20)
        }
        #expect(
            refusal { _ = try Checkpoint.newest(at: scratch.file("x")) }.contains(
                "does not exist; expected a checkpoint"))
        try FileManager.default.removeItem(atPath: "\(folder.path(step: 20))/manifest.json")
        #expect(refusal { _ = try Checkpoint.newest(at: scratch.file("run")) }.contains("never finished"))
        #expect(refusal { _ = try Checkpoint.newest(at: folder.path(step: 20)) }.contains("never finished"))
    }
}
