import Foundation
import Support

/// A message from a rank to the watcher, sent after mutual authentication.
package struct RankMessage: Codable {
    package struct Hello: Codable {
        package var host: String
        package var pid: Int32

        package init(host: String, pid: Int32) { (self.host, self.pid) = (host, pid) }
    }
    package var hello: Hello?
    package var reading: RankActivity.Reading?
    /// The rank ends normally.
    package var bye: Bool?

    package init(hello: Hello? = nil, reading: RankActivity.Reading? = nil, bye: Bool? = nil) {
        (self.hello, self.reading, self.bye) = (hello, reading, bye)
    }
}

/// A message from the watcher to the ranks: a heartbeat every second, and at last the end of the job.
package struct WatcherMessage: Codable {
    package var tick: Int?
    /// The job ends normally.
    package var bye: Bool?
    /// All ranks must exit at once because ranks were lost; rank 0 prints which.
    package var end: Bool?

    package init(tick: Int? = nil, bye: Bool? = nil, end: Bool? = nil) {
        (self.tick, self.bye, self.end) = (tick, bye, end)
    }
}

/// The watcher's addresses and the secret shared by the job. Sent over MPI only.
package struct WatcherAddress: Codable, Sendable {
    package struct Endpoint: Codable, Sendable, Hashable {
        package var address: String
        package var port: UInt16

        package init(_ address: String, _ port: UInt16) { (self.address, self.port) = (address, port) }
    }
    /// Addresses to try, in this order; empty if the watcher cannot listen.
    package var endpoints: [Endpoint]
    package var secret: WatchSecret

    package init(endpoints: [Endpoint], secret: WatchSecret) {
        (self.endpoints, self.secret) = (endpoints, secret)
    }
}

/// Intervals in seconds: between two heartbeats, and between two checks.
enum WatchPace {
    static let beat = 1.0
    static let look = 0.25
    /// After a suspension longer than this the heartbeats are stale, and the timeout checks are skipped once.
    static let doze = 5.0
}

/// The heartbeat line that rank 0 prints every second, by which a launcher detects that the job is alive.
/// mpirun forwards the lines from any host, so no disk is involved.
package struct LauncherHeartbeat: Sendable, Equatable {
    package enum State: Sendable, Equatable {
        case watching
        /// Monitoring has ended normally; no heartbeat follows, and the processes are about to exit.
        case done
        /// Rank 0 aborts the job for this reason; no heartbeat follows.
        case lost(String)
    }

    package var beat: Int
    package var state: State

    package init(_ beat: Int, _ state: State = .watching) { (self.beat, self.state) = (beat, state) }

    private static let prefix = "disttrain-heartbeat"
    private static let (done, lost) = ("done", "lost")

    /// The line without its line feed.
    package var line: String {
        switch state {
        case .watching: "\(Self.prefix) \(beat)"
        case .done: "\(Self.prefix) \(beat) \(Self.done)"
        case .lost(let reason): "\(Self.prefix) \(beat) \(Self.lost) \(reason)"
        }
    }

    /// Returns nil for any other line.
    package init?(line: String) {
        let words = line.split(separator: " ", maxSplits: 3, omittingEmptySubsequences: false)
        guard words.count > 1, words[0] == Self.prefix, let beat = Int(words[1]) else { return nil }
        switch words.count {
        case 2: self.init(beat)
        case 3 where words[2] == Self.done: self.init(beat, .done)
        case 4 where words[2] == Self.lost: self.init(beat, .lost(String(words[3])))
        default: return nil
        }
    }
}

/// Identifies a launcher process uniquely across hosts and reboots. The next launcher of the same run uses it
/// to determine whether this one has died and left its ranks behind.
package struct LauncherProcess: Codable, Sendable, Equatable {
    private let host: String
    private let pid: Int32
    private let processStart: UInt64?
    private let bootID: String?
    private let processNamespace: String?

    package static var current: LauncherProcess {
        let owner = RunLockOwner.current(attempt: "")
        return LauncherProcess(
            host: owner.host, pid: owner.pid, processStart: owner.processStart, bootID: owner.bootID,
            processNamespace: owner.processNamespace)
    }

    /// Whether the process has certainly ended; false if that cannot be determined, for example from another
    /// host.
    package var isDead: Bool {
        RunLockOwner(
            attempt: "", host: host, pid: pid, processStart: processStart, bootID: bootID,
            processNamespace: processNamespace
        ).state == .dead
    }
}
