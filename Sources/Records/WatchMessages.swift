import Foundation

/// What a rank sends to the watcher, once both have proven that they belong to the job.
package struct RankMessage: Codable {
    package struct Hello: Codable {
        package var host: String
        package var pid: Int32

        package init(host: String, pid: Int32) { (self.host, self.pid) = (host, pid) }
    }
    package var hello: Hello?
    package var reading: RankActivity.Reading?
    /// The rank ends, in good order.
    package var bye: Bool?

    package init(hello: Hello? = nil, reading: RankActivity.Reading? = nil, bye: Bool? = nil) {
        (self.hello, self.reading, self.bye) = (hello, reading, bye)
    }
}

/// What the watcher sends to the ranks: a tick each second, at last that the job ends.
package struct WatcherMessage: Codable {
    package var tick: Int?
    /// In good order.
    package var bye: Bool?
    /// At once, since ranks are lost; rank 0 prints which.
    package var end: Bool?

    package init(tick: Int? = nil, bye: Bool? = nil, end: Bool? = nil) {
        (self.tick, self.bye, self.end) = (tick, bye, end)
    }
}

/// Where the watcher can be reached, and the secret by which it and the ranks know each other. Sent over MPI alone.
package struct WatcherAddress: Codable, Sendable {
    package struct Endpoint: Codable, Sendable, Hashable {
        package var address: String
        package var port: UInt16

        package init(_ address: String, _ port: UInt16) { (self.address, self.port) = (address, port) }
    }
    /// Tried in this order; empty where the watcher cannot listen.
    package var endpoints: [Endpoint]
    package var secret: WatchSecret

    package init(endpoints: [Endpoint], secret: WatchSecret) {
        (self.endpoints, self.secret) = (endpoints, secret)
    }
}

/// Seconds between two messages, and between two looks.
enum WatchPace {
    static let beat = 1.0
    static let look = 0.25
    /// After a suspension longer than this the heartbeats are stale, and the timeout checks are skipped once.
    static let doze = 5.0
}
