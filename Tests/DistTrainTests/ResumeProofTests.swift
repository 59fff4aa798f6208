import Checkpointing
import DistTrain
import Foundation
import Records
import Testing
import TestSupport

/// A run of 6 steps in the state that `verify-resume` leaves: a curve, and the checkpoint of the last step.
private struct ProofRun {
    let path: String

    /// - Parameters:
    ///   - change: modifies the state before it is saved.
    ///   - lines: the lines of metrics.jsonl.
    init(
        _ path: String, seed: UInt64 = 1,
        folders: [String] = ["unet", "ema-0.9999", "exp_avg", "exp_avg_sq"],
        ranks: Int = 2, lines: [String] = ProofRun.curve(), change: (CheckpointState) -> Void = { _ in }
    ) throws {
        self.path = path
        let state = CheckpointState(folders: folders, seed: seed)
        change(state)
        _ = try saveCheckpoint(state, step: 6, in: RunFolder(path).checkpoints, ranks: ranks)
        try Data((lines.joined(separator: "\n") + "\n").utf8).write(
            to: URL(fileURLWithPath: "\(path)/metrics.jsonl"))
    }

    static func step(_ step: Int, loss: String? = nil, lr: String = "0.001", norm: String = "1.5") -> String {
        #"{"kind":"step","step":\#(step),"loss":\#(loss ?? "0.\(step)"),"lr":\#(lr),"grad_norm":\#(norm),"time":\#(step)}"#
    }

    /// Six steps; the killed run was resumed from step 4.
    static func curve(resumed: Int? = nil) -> [String] {
        let run = #"{"kind":"run","name":"tiny"}"#
        guard let resumed else { return [run] + (1...6).map { step($0) } }
        let resume = #"{"kind":"resume","step":\#(resumed)}"#
        return [run] + (1...resumed).map { step($0) } + [resume] + (resumed + 1...6).map { step($0) }
    }
}

@Suite struct ResumeProofTests {
    private let scratch: ScratchFolder

    init() throws { scratch = try ScratchFolder() }

    private func sameRanks(_ resumed: ProofRun) throws -> [ResumeProof.Check] {
        let undisturbed = try ProofRun(scratch.file("undisturbed-\(UUID().uuidString)"))
        return try ResumeProof(undisturbed: undisturbed.path, steps: 6).sameRanks(resumed.path, from: 4)
    }

    private func resumed(
        lines: [String] = ProofRun.curve(resumed: 4),
        folders: [String] = ["unet", "ema-0.9999", "exp_avg", "exp_avg_sq"],
        ranks: Int = 2, _ change: (CheckpointState) -> Void = { _ in }
    ) throws -> ProofRun {
        try ProofRun(
            scratch.file("resumed-\(UUID().uuidString)"), folders: folders, ranks: ranks, lines: lines,
            change: change)
    }

    private func failures(_ checks: [ResumeProof.Check]) -> [String] {
        checks.filter { $0.hasPassed == false }.map { "\($0.subject): \($0.finding)" }
    }

    @Test func theSameRunIsProven() throws {
        let checks = try sameRanks(try resumed())
        #expect(checks.allSatisfy { $0.hasPassed == true })
        #expect(
            checks.map(\.subject) == [
                "start", "unet", "ema-0.9999", "exp_avg", "exp_avg_sq", "metrics.jsonl",
            ])
        #expect(checks[1].finding == "5 tensors bit-identical")
        #expect(ResumeProof.table(checks)[0] == "  start          ok  resumed from step 4")
    }

    @Test(arguments: 0..<4) func oneBitOfAnyBufferIsSeen(buffer: Int) throws {
        let checks = try sameRanks(
            try resumed { state in
                let place = state.buffers[buffer].values + state.table.entries[2].offset
                place.pointee = Float(bitPattern: place.pointee.bitPattern ^ 1)
            })
        let name = ["unet", "ema-0.9999", "exp_avg", "exp_avg_sq"][buffer]
        #expect(failures(checks) == ["\(name): 1 tensors differ, first mid.weight"])
        #expect(ResumeProof.table(checks)[buffer + 1].contains("DIFFERS"))
    }

    @Test func aLostAverageIsSeen() throws {
        let checks = try sameRanks(try resumed(folders: ["unet", "exp_avg", "exp_avg_sq"]))
        #expect(failures(checks).contains("ema-0.9999: 5 tensors differ, first conv_in.weight"))
    }

    @Test(arguments: [
        ("gap", "step 6 follows step 4, a gap"), ("repeat", "step 4 appears twice"),
        ("end", "it ends with step 5, expected 6"), ("loss", "loss of step 5 is 0.50000001, expected 0.5"),
        ("lr", "lr of step 5 is 0.002, expected 0.001"),
        ("norm", "grad_norm of step 5 is not a number, expected 1.5"),
    ])
    func aForkedCurveIsSeen(harm: String, words: String) throws {
        var lines = ProofRun.curve(resumed: 4)  // The description, four steps, the resume, two steps.
        switch harm {
        case "gap": lines.remove(at: 6)
        case "repeat": lines.insert(ProofRun.step(4), at: 6)
        case "end": lines.removeLast()
        case "loss": lines[6] = ProofRun.step(5, loss: "0.50000001")
        case "lr": lines[6] = ProofRun.step(5, lr: "0.002")
        default: lines[6] = ProofRun.step(5, norm: "null")
        }
        #expect(failures(try sameRanks(try resumed(lines: lines))) == ["metrics.jsonl: \(words)"])
    }

    /// The results would be the same.
    @Test func aRunThatBeganAnewProvesNothing() throws {
        #expect(
            failures(try sameRanks(try resumed(lines: ProofRun.curve())))
                == ["start: resumed from nothing, expected step 4"])
        #expect(
            failures(try sameRanks(try resumed(lines: ProofRun.curve(resumed: 3))))
                == ["start: resumed from step 3, expected step 4"])
    }

    @Test func checksumsAreThoseOfTheBytes() throws {
        let run = try resumed()
        let path = RunFolder(run.path).checkpoints.path(step: 6)
        try flipBit("\(path)/exp_avg/diffusion_pytorch_model-00002-of-00002.safetensors", at: -1)
        #expect(throws: CheckpointError.self) { try sameRanks(run) }
    }

    // MARK: Other ranks

    @Test func whatWasLoadedIsComparedWithTheCheckpoint() throws {
        let undisturbed = try ProofRun(scratch.file("undisturbed"))
        let proof = try ResumeProof(undisturbed: undisturbed.path, steps: 6)
        let checkpoint = RunFolder(undisturbed.path).checkpoints.path(step: 6)
        // Other files, same tensors.
        let good = try proof.stateLoaded(from: checkpoint, savedAgain: try resumed(ranks: 3).path)
        #expect(good.count == 4 && good.allSatisfy { $0.hasPassed == true })
        let bad = try proof.stateLoaded(
            from: checkpoint, savedAgain: try resumed(ranks: 3) { $0.buffers[3].values[5] += 1 }.path)
        #expect(failures(bad) == ["exp_avg_sq, loaded: 1 tensors differ, first conv_in.weight"])
    }

    @Test(arguments: [("0.500004", true), ("0.49999", false), ("null", false)])
    func theFirstLossIsWithinTheOrderOfSums(loss: String, isClose: Bool) throws {
        let undisturbed = try ProofRun(scratch.file("undisturbed"))
        let proof = try ResumeProof(undisturbed: undisturbed.path, steps: 6)
        var lines = ProofRun.curve(resumed: 4)
        lines[6] = ProofRun.step(5, loss: loss)
        let checks = try proof.otherRanks(
            try resumed(lines: lines, ranks: 3) { $0.buffers[0].values[5] += 1e-3 }.path, from: 4)
        #expect(checks.map(\.subject) == ["start", "metrics.jsonl", "loss of step 5", "unet of step 6"])
        #expect(checks[0].hasPassed == true && checks[1].hasPassed == true)
        #expect(checks[2].hasPassed == isClose, "\(checks[2].finding)")
        // The final weights may differ by any amount.
        #expect(checks[3].hasPassed == nil && checks[3].finding.hasPrefix("relative difference "))
    }

    @Test func aGapIsSeenOnOtherRanksToo() throws {
        let proof = try ResumeProof(undisturbed: try ProofRun(scratch.file("undisturbed")).path, steps: 6)
        var lines = ProofRun.curve(resumed: 4)
        lines.removeLast()
        #expect(
            failures(try proof.otherRanks(try resumed(lines: lines, ranks: 3).path, from: 4))
                == ["metrics.jsonl: it ends with step 5, expected 6"])
    }

    @Test func theLastStepIsFoundInALongFile() throws {
        let lines = (1...500).map { ProofRun.step($0) } + [#"{"kind":"sample","step":500}"#]
        let run = RunFolder(try resumed(lines: lines).path)
        #expect(MetricsHistory.lastStep(of: run) == 500)
        // A line that is still being written.
        let file = try #require(FileHandle(forWritingAtPath: run.metrics))
        try file.seekToEnd()
        try file.write(contentsOf: Data(#"{"kind":"step","step":5"#.utf8))
        try file.close()
        #expect(MetricsHistory.lastStep(of: run) == 500)
        #expect(MetricsHistory.lastStep(of: RunFolder(scratch.file("none"))) == 0)
    }
}
