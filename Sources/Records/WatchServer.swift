import Foundation
import Support

/// The server side of the connections between a job's ranks and the watcher: it accepts, authenticates and
/// serves them, with limits that protect it against unauthenticated peers.
///
/// For one thread.
package final class WatchServer {
    package enum Event {
        case message(rank: Int, RankMessage)
        /// The connection of an authenticated rank has ended.
        case closed(rank: Int)
    }

    package let endpoints: [WatcherAddress.Endpoint]
    /// Maximum number of simultaneous connections.
    package let limit: Int
    private let listeners: [Int32]
    let secret: WatchSecret
    private let ranks: Int
    private var lines: [Line] = []
    /// Descriptors of the connections with pending input or output.
    private var ready: Set<Int32> = []
    /// Time from which to accept connections again after the process ran out of file descriptors.
    private var acceptsAt = -Double.infinity
    /// Called at the first connection that cannot be accepted, then set to nil.
    private var warn: ((String) -> Void)?

    private struct Line {
        let connection: WatchConnection
        let acceptedAt: Double
        /// Whether it has been admitted as the connection of its rank.
        var isServed = false
    }

    /// Seconds within which a connection has to authenticate.
    package static let timeToAuthenticate = 5.0
    /// Connections allowed beyond one per rank.
    package static let spare = 16
    /// Connections accepted per listener before the existing ones are served again.
    private static let acceptedAtOnce = 4
    /// Seconds during which no connection is accepted after running out of file descriptors.
    private static let pause = 1.0

    /// Listens on each of the addresses that can be bound.
    ///
    /// - Parameter warn: called once if connections cannot be accepted.
    package init(
        addresses: [String], ranks: Int, secret: WatchSecret, warn: @escaping (String) -> Void = { _ in }
    ) {
        let bound = addresses.compactMap { address in
            TCP.listen(at: address).map {
                (endpoint: WatcherAddress.Endpoint(address, $0.port), $0.descriptor)
            }
        }
        endpoints = bound.map(\.endpoint)
        listeners = bound.map(\.1)
        (self.ranks, self.secret, self.warn) = (ranks, secret, warn)
        limit = ranks + Self.spare
    }

    deinit { for listener in listeners { close(listener) } }

    package var connectionCount: Int { lines.count }

    /// Waits until a connection needs attention, at most `seconds`. Events that arrive within two
    /// milliseconds are handled together, so that a thousand ranks cost little more than a few.
    package func wait(seconds: Double) {
        var requests = lines.map {
            pollfd(
                fd: $0.connection.descriptor,
                events: Int16(POLLIN) | ($0.connection.wantsToWrite ? Int16(POLLOUT) : 0), revents: 0)
        }
        if monotonicSeconds() >= acceptsAt {
            requests += listeners.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
        }
        guard poll(&requests, nfds_t(requests.count), Int32(seconds * 1000)) > 0 else { return }
        usleep(2000)
        poll(&requests, nfds_t(requests.count), 0)
        ready = Set(requests.filter { $0.revents != 0 }.map(\.fd))
    }

    /// The received events, in the order of the connections.
    package func receive(now: Double) -> [Event] {
        var events: [Event] = []
        // Existing connections first, so that a rank can complete its handshake before new unauthenticated
        // connections displace it.
        for index in lines.indices where ready.contains(lines[index].connection.descriptor) {
            hear(index, &events)
        }
        ready = []
        lines.removeAll { line in
            !line.connection.isOpen && now - line.acceptedAt > Self.timeToAuthenticate
                || line.connection.isClosed
        }
        accept(now, &events)
        return events
    }

    /// Sends a message to all authenticated ranks.
    package func broadcast(_ message: WatcherMessage) {
        for line in lines where line.isServed { line.connection.send(message) }
    }

    // MARK: Connections

    /// Reads from a connection and admits it once it is authenticated.
    private func hear(_ index: Int, _ events: inout [Event]) {
        let connection = lines[index].connection
        connection.flush()
        let messages = connection.receive(RankMessage.self)
        if connection.isOpen, !lines[index].isServed { admit(index) }
        guard lines[index].isServed, let rank = connection.rank else { return }
        events += messages.map { .message(rank: rank, $0) }
        if connection.isClosed { events.append(.closed(rank: rank)) }
    }

    /// Assigns a connection to its rank. Closes it if there is no such rank or if another connection serves
    /// the rank.
    private func admit(_ index: Int) {
        let connection = lines[index].connection
        let isTaken = lines.contains {
            $0.isServed && $0.connection.rank == connection.rank && !$0.connection.isClosed
        }
        guard let rank = connection.rank, (1..<ranks).contains(rank), !isTaken else {
            return connection.close()
        }
        lines[index].isServed = true
        connection.send(WatcherMessage(tick: 0))
    }

    private func accept(_ now: Double, _ events: inout [Event]) {
        guard now >= acceptsAt else { return }
        for listener in listeners {
            for _ in 0..<Self.acceptedAtOnce {
                let descriptor = Foundation.accept(listener, nil, nil)
                if descriptor < 0 {
                    if errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS {
                        return endure(String(cString: strerror(errno)), now)
                    }
                    break
                }
                while lines.count >= limit, dropOldestStranger() {}
                let connection = WatchConnection(descriptor, .watcher, secret: secret)
                guard lines.count < limit else { continue }
                lines.append(Line(connection: connection, acceptedAt: now))
                // A rank sends its hello message directly after connecting.
                hear(lines.count - 1, &events)
            }
        }
    }

    /// Pauses accepting. Without free file descriptors the listeners stay readable, and retrying at once
    /// would use a whole core.
    private func endure(_ reason: String, _ now: Double) {
        _ = dropOldestStranger()
        acceptsAt = now + Self.pause
        warn?("connections of ranks to the watcher cannot be accepted: \(reason)")
        warn = nil
    }

    private func dropOldestStranger() -> Bool {
        // New connections are appended, so the first unauthenticated one is the oldest.
        guard let index = lines.firstIndex(where: { !$0.connection.isOpen }) else { return false }
        lines.remove(at: index)
        return true
    }
}
