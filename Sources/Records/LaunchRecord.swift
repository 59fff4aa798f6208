import Checkpointing
import Foundation
import Support

/// The history of a run's launches, stored as `launch.json` in the run folder. `disttrain status` and the
/// next launch of the same run read it.
package struct LaunchRecord: Codable, Sendable, Equatable {
    package struct Attempt: Codable, Sendable, Equatable {
        /// Number of this start, counted over all launches of the run.
        package var number: Int
        package var id: String
        /// Hosts with their number of ranks, such as "node0:2".
        package var hosts: [String]
        package var threads: Int
        /// `startedAt` and `endedAt` are seconds since 1970.
        package var startedAt: Double
        package var endedAt: Double?
        /// Step of the checkpoint that the attempt resumed from; nil if it started from scratch.
        package var firstStep: Int?
        /// The last logged step.
        package var lastStep: Int?
        package var exitStatus: Int32?
        /// How the attempt ended, in one line.
        package var message: String?

        package init(
            number: Int, id: String, hosts: [String], threads: Int, startedAt: Double, firstStep: Int?
        ) {
            (self.number, self.id, self.hosts, self.threads) = (number, id, hosts, threads)
            (self.startedAt, self.firstStep) = (startedAt, firstStep)
        }
    }

    /// Host and process id of the launcher.
    package var host: String
    package var pid: Int32
    /// nil in records written by older releases.
    package var launcher: LauncherProcess?
    package var maxRestarts: Int
    package var attempts: [Attempt] = []
    /// The launcher has finished.
    package var isOver = false

    package init(host: String, pid: Int32, maxRestarts: Int) {
        (self.host, self.pid, self.maxRestarts) = (host, pid, maxRestarts)
    }

    package static let fileName = RunFolder.launchName
    /// Name of the folder with the attempts' logs, next to `launch.json`.
    package static let logs = RunFolder.logsName
    /// Number of attempts kept. The limit keeps the file short, since it is read every second.
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
        try? AtomicFile.write(Array(data), to: "\(run)/\(Self.fileName)", isDurable: false)
    }
}
