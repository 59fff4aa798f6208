import ArgumentParser
import Foundation
import Records
import Supervision
import Support

/// `disttrain status`: shows the progress of a run, on any machine that has access to its folder.
struct StatusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Show the progress, throughput, run time and hosts of a run.",
        discussion: """
            Reads only the run's folder, on any machine that has access to it, during training or afterwards.

              disttrain status runs/celeba_hq_256
              disttrain status runs/celeba_hq_256 --ranks
              disttrain status runs/celeba_hq_256 --json | jq .progress.step
            """)

    @Argument(help: ArgumentHelp("The run's folder.", valueName: "run"))
    var folder: String

    @Flag(help: "Also show the state of every rank.") var ranks = false

    @Flag(help: "Print status.json and launch.json completely.") var json = false

    func run() throws {
        guard FileManager.default.fileExists(atPath: folder) else {
            throw LaunchError("\(folder): no such folder; expected the folder of a run, such as runs/NAME")
        }
        let status = JobStatus.read(folder)
        let launch = LaunchRecord.read(folder)
        guard status != nil || launch != nil else {
            throw LaunchError(
                "\(folder): no status.json found; no training run has been started in this folder")
        }
        if json {
            struct Both: Encodable {
                var status: JobStatus?
                var launch: LaunchRecord?
            }
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .prettyPrinted]
            encoder.nonConformingFloatEncodingStrategy = .convertToString(
                positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
            print(String(decoding: try encoder.encode(Both(status: status, launch: launch)), as: UTF8.self))
            return
        }
        print(
            StatusPage(
                run: folder, status: status, launch: launch, showsRanks: ranks,
                now: Date().timeIntervalSince1970
            ).text)
    }
}

/// The output of `disttrain status`.
struct StatusPage {
    let run: String
    let status: JobStatus?
    let launch: LaunchRecord?
    let showsRanks: Bool
    /// Current time, in seconds since 1970.
    let now: Double

    /// Seconds without a new status after which a running job is reported as possibly dead. The clocks of two
    /// hosts may differ.
    private static let silence = 30.0

    var text: String {
        var rows: [(String, String)] = [("run", "\(status?.name ?? "?") in \(run)"), ("state", state)]
        if let status {
            if let progress = status.progress {
                rows.append(("progress", progress.fields(of: status.steps).joined(separator: "  ")))
                rows.append(("step time", String(format: "%.3f s", progress.stepSeconds)))
            } else {
                rows.append(("progress", "no step logged yet, of \(status.steps)"))
            }
            rows.append(("checkpoint", status.checkpointStep.map { "step \($0)" } ?? "none yet"))
            if let alarm = status.alarm {
                rows.append(("ALARM", "no checkpoint can be saved, retrying: \(alarm)"))
            }
            rows.append(
                (
                    "since",
                    "\(Self.time(status.startedAt)), for \(duration(status.updatedAt - status.startedAt))"
                ))
            rows.append(("hosts", hosts(status)))
            if let slowest = status.slowestHost, let ratio = status.slowestRatio {
                rows.append(
                    (
                        "slowest",
                        String(format: "%@, %.2f times the median compute time per step", slowest, ratio)
                    ))
            }
        }
        if let launch, let first = launch.attempts.first {
            let failed = launch.attempts.filter { ![nil, 0, 75].contains($0.exitStatus) }.count
            rows.append(
                (
                    "attempts",
                    "\(launch.attempts.last?.number ?? 0) since \(Self.time(first.startedAt)), \(failed) of them failed"
                ))
            if let last = launch.attempts.last(where: { ![nil, 0, 75].contains($0.exitStatus) }) {
                rows.append(("last failure", "attempt \(last.number): \(last.message ?? "unknown")"))
            }
            if !launch.isOver { rows.append(("launcher", "process \(launch.pid) on \(launch.host)")) }
        }
        let width = rows.map(\.0.count).max() ?? 0
        var lines = rows.map { $0.0 + String(repeating: " ", count: width + 2 - $0.0.count) + $0.1 }
        if showsRanks, let status { lines += [""] + status.ranks.map(\.line) }
        return lines.joined(separator: "\n")
    }

    private var state: String {
        guard let status else { return "starting" }
        let age = now - status.updatedAt
        switch status.state {
        case .running:
            return age > Self.silence
                ? "running, or lost: no update for \(duration(age))" : "running"
        case .finished: return "finished \(Self.time(status.updatedAt))"
        case .stopped: return "stopped \(Self.time(status.updatedAt)): \(status.message ?? "")"
        case .failed: return "failed \(Self.time(status.updatedAt)): \(status.message ?? "")"
        }
    }

    private func hosts(_ status: JobStatus) -> String {
        var counts: [(name: String, ranks: Int)] = []
        for member in status.ranks {
            if counts.last?.name == member.host {
                counts[counts.count - 1].ranks += 1
            } else {
                counts.append((member.host, 1))
            }
        }
        let shown = counts.prefix(8).map { "\($0.name) (\($0.ranks))" }.joined(separator: ", ")
        return "\(status.ranks.count) ranks on \(shown)"
            + (counts.count > 8 ? " and \(counts.count - 8) more" : "")
    }

    private static func time(_ seconds: Double) -> String {
        Date(timeIntervalSince1970: seconds).formatted(.iso8601)
    }
}
