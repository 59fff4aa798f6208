import Foundation

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
