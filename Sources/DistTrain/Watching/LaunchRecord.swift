import Foundation

/// What a launcher has done for a run so far, in `launch.json` of the run's folder: for `disttrain status`, and for the
/// next launch of the same run.
public struct LaunchRecord: Codable, Sendable, Equatable {
    public struct Attempt: Codable, Sendable, Equatable {
        /// Counts all starts of the run.
        public var number: Int
        public var id: String
        /// Ranks by host: "node0:2".
        public var hosts: [String]
        public var threads: Int
        /// Seconds since 1970.
        public var startedAt: Double
        public var endedAt: Double?
        /// Of the checkpoint it went on from; nil: from nothing.
        public var firstStep: Int?
        /// The last step that was logged.
        public var lastStep: Int?
        public var exitStatus: Int32?
        /// How it ended, in a line.
        public var message: String?

        public init(
            number: Int, id: String, hosts: [String], threads: Int, startedAt: Double, firstStep: Int?
        ) {
            (self.number, self.id, self.hosts, self.threads) = (number, id, hosts, threads)
            (self.startedAt, self.firstStep) = (startedAt, firstStep)
        }
    }

    /// Where the launcher runs.
    public var host: String
    public var pid: Int32
    /// nil in records of older releases.
    public var launcher: LauncherProcess?
    public var maxRestarts: Int
    public var attempts: [Attempt] = []
    /// The launcher is done.
    public var isOver = false

    public init(host: String, pid: Int32, maxRestarts: Int) {
        (self.host, self.pid, self.maxRestarts) = (host, pid, maxRestarts)
    }

    /// Variables by which a launcher tells ranks which start they are, and which one before is over.
    public static let attemptVariable = "DISTTRAIN_ATTEMPT"
    public static let supersededVariable = "DISTTRAIN_SUPERSEDES"

    /// This process's; nil where no launcher has started it.
    public static var attempt: String? { ProcessInfo.processInfo.environment[attemptVariable] }
    public static var superseded: String? { ProcessInfo.processInfo.environment[supersededVariable] }

    public static let fileName = "launch.json"
    /// The folder of the attempts' logs, beside it.
    public static let logs = "logs"
    /// More would make a file that is read every second long.
    private static let kept = 200

    public static func read(_ run: String) -> LaunchRecord? {
        guard let data = FileManager.default.contents(atPath: "\(run)/\(fileName)") else { return nil }
        return try? JSONDecoder().decode(LaunchRecord.self, from: data)
    }

    public func write(_ run: String) {
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
