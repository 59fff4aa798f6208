import Foundation
import Support

/// The connections of a job's ranks to the watcher: accepted, authenticated and served, with limits that strangers
/// cannot exceed.
///
/// For one thread.
package final class WatchServer {
    package enum Event {
        case message(rank: Int, RankMessage)
        /// The connection of a rank that had proven itself has ended.
        case closed(rank: Int)
    }

    package let endpoints: [WatcherAddress.Endpoint]
    /// Connections at a time.
    package let limit: Int
    private let listeners: [Int32]
    let secret: WatchSecret
    private let ranks: Int
    private var lines: [Line] = []
    /// Descriptors of the connections that have something to say.
    private var ready: Set<Int32> = []
    /// When to accept again after the process ran out of file descriptors.
    private var acceptsAt = -Double.infinity
    /// For the first connection that could not be accepted, once.
    private var warn: ((String) -> Void)?

    private struct Line {
        let connection: WatchConnection
        let acceptedAt: Double
        /// It has been announced as the connection of its rank.
        var isServed = false
    }

    /// Seconds in which a connection has to prove that it is a rank's.
    package static let timeToAuthenticate = 5.0
    /// Connections beyond one for each rank.
    package static let spare = 16
    /// Connections accepted before those that are there are heard again.
    private static let acceptedAtOnce = 4
    /// Seconds without new connections where there are no file descriptors.
    private static let pause = 1.0

    /// Listens at each of these addresses that it can.
    ///
    /// - Parameter warn: called once where connections cannot be accepted.
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

    /// Waits until there is something to do, or for so many seconds. What arrives within two milliseconds is taken
    /// together, so that a thousand ranks cost no more than a few.
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

    /// What has come in, in the order of the connections.
    package func receive(now: Double) -> [Event] {
        var events: [Event] = []
        // First those that are there, so that a rank can answer its challenge before strangers take its place.
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

    /// Sends to all ranks that have proven themselves.
    package func broadcast(_ message: WatcherMessage) {
        for line in lines where line.isServed { line.connection.send(message) }
    }

    // MARK: Connections

    /// Reads what a connection has, and announces it once it has proven whose it is.
    private func hear(_ index: Int, _ events: inout [Event]) {
        let connection = lines[index].connection
        connection.flush()
        let messages = connection.receive(RankMessage.self)
        if connection.isOpen, !lines[index].isServed { admit(index) }
        guard lines[index].isServed, let rank = connection.rank else { return }
        events += messages.map { .message(rank: rank, $0) }
        if connection.isClosed { events.append(.closed(rank: rank)) }
    }

    /// Takes a connection for its rank's, or closes it where there is no such rank or another connection serves it.
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
                // A rank says hello at once.
                hear(lines.count - 1, &events)
            }
        }
    }

    /// Without file descriptors the listeners stay readable, and asking again at once would take a whole core.
    private func endure(_ reason: String, _ now: Double) {
        _ = dropOldestStranger()
        acceptsAt = now + Self.pause
        warn?("connections of ranks to the watcher cannot be accepted: \(reason)")
        warn = nil
    }

    private func dropOldestStranger() -> Bool {
        // New ones are appended.
        guard let index = lines.firstIndex(where: { !$0.connection.isOpen }) else { return false }
        lines.remove(at: index)
        return true
    }
}
