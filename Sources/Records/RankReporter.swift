import Foundation
import Support
import Synchronization

/// A thread on every rank except 0 that reports the rank's activity to rank 0. It ends the process if rank 0
/// requests it or is lost. It touches no disk.
final class RankReporter: Sendable {
    private let activity: RankActivity
    private let rank: Int
    private let host: String
    private let silence: Double
    private let wantsToLeave = Atomic<Bool>(false)
    private let ended = DispatchSemaphore(value: 0)

    /// - Returns: nil if rank 0 cannot be reached; the rank is then not monitored.
    init?(
        to watcher: WatcherAddress, rank: Int, host: String, activity: RankActivity, limits: WatchLimits
    ) {
        (self.rank, self.host, self.activity) = (rank, host, activity)
        silence = limits.silence
        guard let connection = WatchLink.connect(to: watcher, rank: rank) else { return nil }
        connection.send(RankMessage(hello: RankMessage.Hello(host: host, pid: getpid())))
        // From here on, only the thread uses the connection.
        nonisolated(unsafe) let own = connection
        startThread("rank reporter") { [self] in
            report(own)
            ended.signal()
        }
    }

    /// Sends the goodbye message and waits until the thread has sent it.
    func leave() {
        wantsToLeave.store(true, ordering: .relaxed)
        ended.wait()
        ended.signal()
    }

    private func report(_ connection: WatchConnection) {
        var heardAt = monotonicSeconds()
        var toldAt = -Double.infinity
        var lookedAt = heardAt
        while true {
            var request = pollfd(fd: connection.descriptor, events: Int16(POLLIN), revents: 0)
            poll(&request, 1, Int32(WatchPace.look * 1000))
            let now = monotonicSeconds()
            if now - lookedAt > WatchPace.doze { heardAt = now }
            lookedAt = now
            for message in connection.receive(WatcherMessage.self) {
                heardAt = now
                if message.bye == true { return }
                if message.end == true { _exit(ExitStatus.crash) }  // Rank 0 has printed the reason.
            }
            if wantsToLeave.load(ordering: .relaxed) { return connection.send(RankMessage(bye: true)) }
            if connection.isClosed { end("rank 0 on the watching host has died") }
            if now - heardAt > silence {
                end(
                    "no heartbeat from rank 0 for \(duration(silence)): its host is down or unreachable, "
                        + "or it is suspended"
                )
            }
            if now - toldAt >= WatchPace.beat {
                connection.send(RankMessage(reading: activity.reading))
                toldAt = now
            }
            connection.flush()
        }
    }

    private func end(_ reason: String) -> Never {
        let own = activity.reading
        Console.error.write(
            "Error (rank \(rank) on \(host)): step \(own.step): \(reason); this rank was \(own.phase.words)\n"
        )
        _exit(ExitStatus.crash)
    }
}

/// Connects a rank to the watcher.
package enum WatchLink {
    /// Timeouts in seconds: for one address to respond, and for all attempts together. The total is below the
    /// time a rank has to join.
    private static let answer = 2.0
    private static let patience = 12.0

    /// Connects to the watcher and authenticates both sides.
    ///
    /// An address may belong to another host on which something else listens at that port. Such a peer does
    /// not have the secret, so the address is discarded. A connection that ends without a response is
    /// retried, since the watcher drops unauthenticated connections when it has too many.
    ///
    /// - Returns: nil if no address leads to the watcher.
    package static func connect(to watcher: WatcherAddress, rank: Int) -> WatchConnection? {
        let deadline = monotonicSeconds() + patience
        var endpoints = watcher.endpoints
        while !endpoints.isEmpty, monotonicSeconds() < deadline {
            for endpoint in endpoints {
                switch attempt(endpoint, watcher.secret, rank, until: deadline) {
                case .connected(let connection): return connection
                case .wrong: endpoints.removeAll { $0 == endpoint }
                case .dropped: usleep(20_000)
                }
            }
        }
        return nil
    }

    private enum Attempt {
        case connected(WatchConnection)
        /// The watcher does not listen at this address.
        case wrong
        /// The watcher may listen at this address, but it did not serve the connection.
        case dropped
    }

    private static func attempt(
        _ endpoint: WatcherAddress.Endpoint, _ secret: WatchSecret, _ rank: Int, until deadline: Double
    ) -> Attempt {
        let descriptor: Int32
        do {
            descriptor = try TCP.connect(endpoint.address, endpoint.port, timeout: answer)
        } catch {
            return error == .refused ? .wrong : .dropped
        }
        let connection = WatchConnection(descriptor, .rank(rank), secret: secret)
        let patience = min(deadline, monotonicSeconds() + WatchServer.timeToAuthenticate)
        while monotonicSeconds() < patience, !connection.isClosed {
            var request = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            poll(&request, 1, 100)
            let ticks = connection.receive(WatcherMessage.self)
            // The first tick confirms that the watcher serves this connection.
            if !ticks.isEmpty { return .connected(connection) }
        }
        return connection.failure != nil ? .wrong : .dropped
    }
}
