import Checkpointing
import Foundation
import Records

/// What `disttrain verify-resume` finds out from the folders of its runs, a line of its table each.
///
/// One run was never stopped. Another with the same settings was killed, and resumed from its last checkpoint: on as many
/// ranks it must come to the same to the bit, on another number to the same but for the order of sums.
package struct ResumeProof {
    /// Something that was compared.
    package struct Check: Sendable, Equatable {
        package let subject: String
        package let finding: String
        /// nil for what is reported and proves nothing.
        package let hasPassed: Bool?
    }

    /// How far apart a step's loss may be on two numbers of ranks, relative: another order of fp32 sums.
    package static let lossTolerance = 1e-5

    let undisturbed: RunFolder
    let trace: MetricsTrace
    /// Of the whole run.
    let steps: Int

    /// - Parameter undisturbed: the folder of the run that was never stopped.
    package init(undisturbed: String, steps: Int) throws(MetricsError) {
        self.undisturbed = RunFolder(undisturbed)
        self.steps = steps
        trace = try MetricsTrace(of: self.undisturbed)
    }

    /// Of a run that was killed and resumed from the checkpoint of `step` on as many ranks: everything is the same.
    ///
    /// - Throws: `CheckpointError` where a checkpoint is missing or damaged, `MetricsError` where metrics cannot be read.
    package func sameRanks(_ resumed: String, from step: Int) throws -> [Check] {
        let run = RunFolder(resumed)
        let curve = try MetricsTrace(of: run)
        let states = try Self.compare(try last(undisturbed), try last(run))
        let same = "the same in \(MetricsTrace.keys.joined(separator: ", ")); "
        return [start(of: curve, from: step)] + states
            + [metrics(curve.firstDifference(from: trace, steps: steps), same)]
    }

    /// Of a checkpoint, and what a run on another number of ranks saved as soon as it had loaded it.
    package func stateLoaded(from checkpoint: String, savedAgain run: String) throws -> [Check] {
        let original = try Checkpoint(opening: checkpoint)
        return try Self.compare(original, try Checkpoint.newest(at: run)).map {
            Check(subject: "\($0.subject), loaded", finding: $0.finding, hasPassed: $0.hasPassed)
        }
    }

    /// Of a run that was killed and resumed from the checkpoint of `step` on another number of ranks: the first step is
    /// the same but for the order of sums. The distance of the final weights is reported: it grows with the steps.
    package func otherRanks(_ resumed: String, from step: Int) throws -> [Check] {
        let run = RunFolder(resumed)
        let curve = try MetricsTrace(of: run)
        var checks = [start(of: curve, from: step), metrics(curve.disorder(steps: steps))]
        let losses = (found: curve.loss(at: step + 1), expected: trace.loss(at: step + 1))
        let relative = losses.found.flatMap { found in losses.expected.map { abs(found - $0) / abs($0) } }
        checks.append(
            Check(
                subject: "loss of step \(step + 1)",
                finding: relative.map {
                    String(format: "relative difference %.1e, at most %.0e", $0, Self.lossTolerance)
                } ?? "no number",
                // A NaN is within nothing.
                hasPassed: relative.map { $0 <= Self.lossTolerance } ?? false))
        let (first, second) = (try last(undisturbed), try last(run))
        let difference = try FolderDifference(first.manifest.run.modelFolder, first, second)
        checks.append(
            Check(
                subject: "\(difference.folder) of step \(steps)",
                finding: String(format: "relative difference %.1e", difference.relative), hasPassed: nil))
        return checks
    }

    /// A run that began anew would come to the same, too.
    private func start(of curve: MetricsTrace, from step: Int) -> Check {
        if curve.resumedSteps == [step] {
            return Check(subject: "start", finding: "resumed from step \(step)", hasPassed: true)
        }
        let found = curve.resumedSteps.map(String.init).joined(separator: ", ")
        return Check(
            subject: "start",
            finding: "resumed from \(found.isEmpty ? "nothing" : "step \(found)"), expected step \(step)",
            hasPassed: false)
    }

    /// - Parameter more: what is true besides where there is no problem.
    private func metrics(_ problem: String?, _ more: String = "") -> Check {
        Check(
            subject: "metrics.jsonl", finding: problem ?? "\(steps) steps, \(more)none missing, none twice",
            hasPassed: problem == nil)
    }

    private func last(_ run: RunFolder) throws(CheckpointError) -> Checkpoint {
        try Checkpoint(opening: run.checkpoints.path(step: steps))
    }

    /// By checksums, and these by every byte.
    static func compare(_ a: Checkpoint, _ b: Checkpoint) throws(CheckpointError) -> [Check] {
        try a.verify()
        try b.verify()
        return try StateComparison(a, b).folders.map { folder in
            guard let first = folder.differing.first else {
                return Check(
                    subject: folder.name, finding: "\(folder.tensors) tensors the same to the bit",
                    hasPassed: true)
            }
            return Check(
                subject: folder.name, finding: "\(folder.differing.count) tensors differ, first \(first)",
                hasPassed: false)
        }
    }

    /// The checks as lines of a table.
    package static func table(_ checks: [Check]) -> [String] {
        columns(
            checks.map { check in
                ["  \(check.subject)", check.hasPassed.map { $0 ? "ok" : "DIFFERS" } ?? "", check.finding]
            })
    }
}
