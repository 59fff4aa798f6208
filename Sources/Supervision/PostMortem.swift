import Foundation
import Records
import Support

/// A one-page report on a failed attempt: the cause, the position of every rank, its last output, and what
/// happens next.
struct PostMortem {
    var attempt: LaunchRecord.Attempt
    var status: JobStatus?
    var cause: String
    var decision: String
    var committedStep: Int?
    var lastLines: [Int: [String]]

    /// Maximum number of ranks on the page. The logs of all ranks are in the same folder.
    private static let shown = 32

    var text: String {
        var lines = [
            "POST-MORTEM of attempt \(attempt.number), \(Self.time(attempt.endedAt ?? attempt.startedAt))",
            "",
            "Cause           \(cause)",
            "Decision        \(decision)",
            "Time            \(Self.time(attempt.startedAt)) to \(Self.time(attempt.endedAt ?? attempt.startedAt)), "
                + "\(duration((attempt.endedAt ?? attempt.startedAt) - attempt.startedAt))",
            "Hosts           \(attempt.hosts.joined(separator: ", "))",
            "Started from    \(attempt.firstStep.map { "step \($0)" } ?? "no checkpoint")",
            "Last step       \(attempt.lastStep.map { "step \($0)" } ?? "none logged")",
            "Checkpoint      \(committedStep.map { "step \($0)" } ?? "none yet")",
        ]
        if let status {
            lines += ["", "Ranks, last known state:"]
            let missing = Set(status.missing ?? [])
            let ordered =
                status.ranks.filter { missing.contains($0.rank) }
                + status.ranks.filter { !missing.contains($0.rank) }
            for member in ordered.prefix(Self.shown) {
                lines.append("  \(missing.contains(member.rank) ? "*" : " ") \(member.line)")
            }
            if ordered.count > Self.shown { lines.append("    and \(ordered.count - Self.shown) more") }
            if let host = status.slowestHost, let ratio = status.slowestRatio {
                lines.append(
                    "  slowest host: \(host), \(String(format: "%.2f", ratio)) times the median compute time per step"
                )
            }
        }
        for (rank, said) in lastLines.sorted(by: { $0.key < $1.key }).prefix(Self.shown) where !said.isEmpty {
            lines += ["", rank < 0 ? "Last output of mpirun:" : "Last output of rank \(rank):"]
            lines += said.suffix(rank == 0 || rank < 0 ? 15 : 5).map { "    \($0)" }
        }
        return lines.joined(separator: "\n") + "\n"
    }

    private static func time(_ seconds: Double) -> String {
        Date(timeIntervalSince1970: seconds).formatted(.iso8601)
    }
}
