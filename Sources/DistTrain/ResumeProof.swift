import Checkpointing
import Foundation
import Records

/// The checks of `disttrain verify-resume` on the folders of its runs, one table line each.
///
/// One run was never stopped. Another with the same settings was killed and resumed from its last checkpoint. On
/// the same number of ranks its results must be bitwise identical; on another number they may differ only by the
/// order of sums.
package struct ResumeProof {
    /// The result of one comparison.
    package struct Check: Sendable, Equatable {
        package let subject: String
        package let finding: String
        /// nil if the comparison is only reported and cannot fail.
        package let hasPassed: Bool?
    }

    /// Relative tolerance for the loss of a step on different numbers of ranks: the order of fp32 sums differs.
    package static let lossTolerance = 1e-5

    let undisturbed: RunFolder
    let trace: MetricsTrace
    /// Number of steps of the complete run.
    let steps: Int

    /// - Parameter undisturbed: the folder of the run that was never stopped.
    package init(undisturbed: String, steps: Int) throws(MetricsError) {
        self.undisturbed = RunFolder(undisturbed)
        self.steps = steps
        trace = try MetricsTrace(of: self.undisturbed)
    }

    /// Checks a run that was killed and resumed from the checkpoint of `step` on the same number of ranks:
    /// everything must be identical.
    ///
    /// - Throws: `CheckpointError` if a checkpoint is missing or damaged, `MetricsError` if metrics cannot be read.
    package func sameRanks(_ resumed: String, from step: Int) throws -> [Check] {
        let run = RunFolder(resumed)
        let curve = try MetricsTrace(of: run)
        let states = try Self.compare(try last(undisturbed), try last(run))
        let same = "the same in \(MetricsTrace.keys.joined(separator: ", ")); "
        return [start(of: curve, from: step)] + states
            + [metrics(curve.firstDifference(from: trace, steps: steps), same)]
    }

    /// Compares a checkpoint with the one that a run on another number of ranks saved immediately after loading it.
    package func stateLoaded(from checkpoint: String, savedAgain run: String) throws -> [Check] {
        let original = try Checkpoint(opening: checkpoint)
        return try Self.compare(original, try Checkpoint.newest(at: run)).map {
            Check(subject: "\($0.subject), loaded", finding: $0.finding, hasPassed: $0.hasPassed)
        }
    }

    /// Checks a run that was killed and resumed from the checkpoint of `step` on another number of ranks: its first
    /// step may differ only by the order of sums. The distance of the final weights is reported; it grows with the
    /// number of steps.
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
                } ?? "not a number",
                // A NaN is never within the tolerance.
                hasPassed: relative.map { $0 <= Self.lossTolerance } ?? false))
        let (first, second) = (try last(undisturbed), try last(run))
        let difference = try FolderDifference(first.manifest.run.modelFolder, first, second)
        checks.append(
            Check(
                subject: "\(difference.folder) of step \(steps)",
                finding: String(format: "relative difference %.1e", difference.relative), hasPassed: nil))
        return checks
    }

    /// Checks that the run did resume: a run that started over would reach the same result.
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

    /// - Parameter more: an additional finding to report if there is no problem.
    private func metrics(_ problem: String?, _ more: String = "") -> Check {
        Check(
            subject: "metrics.jsonl",
            finding: problem ?? "\(steps) steps, \(more)none missing, none repeated",
            hasPassed: problem == nil)
    }

    private func last(_ run: RunFolder) throws(CheckpointError) -> Checkpoint {
        try Checkpoint(opening: run.checkpoints.path(step: steps))
    }

    /// Compares checksums, after verifying them against every byte.
    static func compare(_ a: Checkpoint, _ b: Checkpoint) throws(CheckpointError) -> [Check] {
        try a.verify()
        try b.verify()
        return try StateComparison(a, b).folders.map { folder in
            guard let first = folder.differing.first else {
                return Check(
                    subject: folder.name, finding: "\(folder.tensors) tensors bit-identical",
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
