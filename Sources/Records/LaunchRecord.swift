import Checkpointing
import Foundation

/// What a launcher has done for a run so far, in `launch.json` of the run's folder: for `disttrain status`, and for the
/// next launch of the same run.
package struct LaunchRecord: Codable, Sendable, Equatable {
    package struct Attempt: Codable, Sendable, Equatable {
        /// Counts all starts of the run.
        package var number: Int
        package var id: String
        /// Ranks by host: "node0:2".
        package var hosts: [String]
        package var threads: Int
        /// Seconds since 1970.
        package var startedAt: Double
        package var endedAt: Double?
        /// Of the checkpoint it went on from; nil: from nothing.
        package var firstStep: Int?
        /// The last step that was logged.
        package var lastStep: Int?
        package var exitStatus: Int32?
        /// How it ended, in a line.
        package var message: String?

        package init(
            number: Int, id: String, hosts: [String], threads: Int, startedAt: Double, firstStep: Int?
        ) {
            (self.number, self.id, self.hosts, self.threads) = (number, id, hosts, threads)
            (self.startedAt, self.firstStep) = (startedAt, firstStep)
        }
    }

    /// Where the launcher runs.
    package var host: String
    package var pid: Int32
    /// nil in records of older releases.
    package var launcher: LauncherProcess?
    package var maxRestarts: Int
    package var attempts: [Attempt] = []
    /// The launcher is done.
    package var isOver = false

    package init(host: String, pid: Int32, maxRestarts: Int) {
        (self.host, self.pid, self.maxRestarts) = (host, pid, maxRestarts)
    }

    package static let fileName = RunFolder.launchName
    /// The folder of the attempts' logs, beside it.
    package static let logs = RunFolder.logsName
    /// More would make a file that is read every second long.
    private static let kept = 200

    package static func read(_ run: String) -> LaunchRecord? {
        guard let data = FileManager.default.contents(atPath: "\(run)/\(fileName)") else { return nil }
        return try? JSONDecoder().decode(LaunchRecord.self, from: data)
    }

    package func write(_ run: String) {
        var record = self
        record.attempts = Array(attempts.suffix(Self.kept))
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .prettyPrinted]
        guard let data = try? encoder.encode(record) else { return }
        let temporary = "\(run)/\(Self.fileName).\(getpid())"
        guard FileManager.default.createFile(atPath: temporary, contents: data) else { return }
        if rename(temporary, "\(run)/\(Self.fileName)") != 0 { unlink(temporary) }
    }
}
