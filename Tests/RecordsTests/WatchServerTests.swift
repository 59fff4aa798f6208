import Foundation
import Records
import Support
import Synchronization
import Testing

/// Seconds on the server's clock.
private func now() -> Double { ProcessInfo.processInfo.systemUptime }

/// Tests with real sockets, on the loopback interface only.
@Suite(.serialized) struct WatchServerTests {
    private static let secret = WatchSecret.random()
    private static let ranks = 4

    /// Runs a server until it is stopped, and records its events.
    private final class Service: Sendable {
        private struct State {
            var readings: [Int: Int] = [:]
            var closed: [Int] = []
            var mostConnections = 0
            var isStopping = false
        }
        private let state = Mutex(State())
        private let ended = DispatchSemaphore(value: 0)
        let address: WatcherAddress

        init() {
            let server = WatchServer(
                addresses: ["127.0.0.1"], ranks: WatchServerTests.ranks, secret: WatchServerTests.secret)
            address = WatcherAddress(endpoints: server.endpoints, secret: WatchServerTests.secret)
            nonisolated(unsafe) let own = server
            Thread { [self] in
                while !state.withLock({ $0.isStopping }) {
                    own.wait(seconds: 0.05)
                    for event in own.receive(now: now()) { note(event) }
                    own.broadcast(WatcherMessage(tick: 1))
                    state.withLock { $0.mostConnections = max($0.mostConnections, own.connectionCount) }
                }
                ended.signal()
            }.start()
        }

        private func note(_ event: WatchServer.Event) {
            state.withLock {
                switch event {
                case .message(let rank, let message):
                    if message.reading != nil { $0.readings[rank, default: 0] += 1 }
                case .closed(let rank): $0.closed.append(rank)
                }
            }
        }

        func readings(of rank: Int) -> Int { state.withLock { $0.readings[rank, default: 0] } }
        var closed: [Int] { state.withLock { $0.closed } }
        var mostConnections: Int { state.withLock { $0.mostConnections } }

        func stop() {
            state.withLock { $0.isStopping = true }
            ended.wait()
        }
    }

    /// A rank that reports frequently until it is stopped.
    private final class Reporting: Sendable {
        private let isStopping = Mutex(false)
        private let ticks = Mutex(0)
        private let ended = DispatchSemaphore(value: 0)

        init?(_ rank: Int, to service: Service) {
            guard let connection = WatchLink.connect(to: service.address, rank: rank) else { return nil }
            nonisolated(unsafe) let own = connection
            Thread { [self] in
                while !isStopping.withLock({ $0 }), !own.isClosed {
                    own.send(RankMessage(reading: RankActivity().reading))
                    let count = own.receive(WatcherMessage.self).count
                    ticks.withLock { $0 += count }
                    usleep(10_000)
                }
                own.close()
                ended.signal()
            }.start()
        }

        var tickCount: Int { ticks.withLock { $0 } }

        func stop() {
            isStopping.withLock { $0 = true }
            ended.wait()
        }
    }

    /// Lets two ranks report to a watcher while `body` uses its port, and checks that both are served
    /// throughout.
    ///
    /// - Parameter closed: ranks whose connections end meanwhile.
    private func whileServing(
        closed: [Int] = [], _ body: (_ port: UInt16, Service) throws -> Void
    ) throws {
        let service = Service()
        defer { service.stop() }
        let first = try #require(Reporting(1, to: service))
        let reporting = [first, try #require(Reporting(2, to: service))]
        let port = try #require(service.address.endpoints.first).port
        try body(port, service)
        // Both ranks are still served.
        for (index, rank) in reporting.enumerated() {
            let (ticks, readings) = (rank.tickCount, service.readings(of: index + 1))
            #expect(eventually { rank.tickCount > ticks && service.readings(of: index + 1) > readings })
        }
        #expect(eventually { service.closed == closed })
        #expect(service.mostConnections <= Self.ranks + 16)
        for rank in reporting { rank.stop() }
    }

    private func eventually(_ condition: () -> Bool) -> Bool {
        let deadline = now() + 60
        while now() < deadline {
            if condition() { return true }
            usleep(5_000)
        }
        return false
    }

    // MARK: Unauthenticated peers

    /// A plain TCP connection; nil if it is not accepted.
    private func connect(_ port: UInt16) -> Int32? {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        inet_pton(AF_INET, "127.0.0.1", &address.sin_addr)
        let result = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Foundation.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard result == 0 else {
            close(descriptor)
            return nil
        }
        return descriptor
    }

    /// Reads until the peer closes the connection, for at most `seconds`.
    private func readAll(_ descriptor: Int32, seconds: Double) -> (bytes: [UInt8], isClosed: Bool) {
        var bytes: [UInt8] = []
        let deadline = now() + seconds
        while now() < deadline {
            var request = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            guard poll(&request, 1, 50) > 0 else { continue }
            var buffer = [UInt8](repeating: 0, count: 4096)
            let count = recv(descriptor, &buffer, buffer.count, 0)
            if count <= 0 { return (bytes, true) }
            bytes += buffer[..<count]
        }
        return (bytes, false)
    }

    private func write(_ bytes: [UInt8], to descriptor: Int32) -> Bool {
        bytes.withUnsafeBytes {
            send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) == bytes.count
        }
    }

    @Test func twoThousandIdleConnections() throws {
        OpenFileLimit.raise()
        try whileServing(closed: [3]) { port, service in
            var held: [Int32] = []
            defer { for descriptor in held { close(descriptor) } }
            for index in 0..<2000 {
                if let descriptor = connect(port) { held.append(descriptor) }
                if index == 1000 {
                    // A rank that connects while all places are taken is admitted.
                    let late = try #require(Reporting(3, to: service))
                    #expect(eventually { service.readings(of: 3) > 0 })
                    late.stop()
                    #expect(eventually { service.closed == [3] })
                }
            }
            #expect(held.count > 1900)
            // Nothing is sent to them, and those beyond the limit are closed at once.
            let first = try #require(held.first)
            let found = readAll(first, seconds: 30)
            #expect(found.bytes.isEmpty && found.isClosed)
            let last = readAll(held[held.count - 1], seconds: 30)
            #expect(last.bytes.isEmpty && last.isClosed)
            #expect(service.closed == [3])
        }
    }

    @Test func aFloodOfNewlines() throws {
        try whileServing { port, _ in
            let flood = [UInt8](repeating: UInt8(ascii: "\n"), count: 1 << 16)
            for _ in 0..<50 {
                guard let descriptor = connect(port) else { continue }
                defer { close(descriptor) }
                var sent = 0
                while sent < 64, write(flood, to: descriptor) { sent += 1 }
                let found = readAll(descriptor, seconds: 30)
                #expect(found.bytes.isEmpty && found.isClosed)
            }
        }
    }

    @Test func aHelloWithoutAProof() throws {
        try whileServing { port, _ in
            let descriptor = try #require(connect(port))
            defer { close(descriptor) }
            #expect(write(WatchChannel(.rank(3), secret: WatchSecret.random()).greeting, to: descriptor))
            let found = readAll(descriptor, seconds: 30)
            #expect(found.bytes.count == WatchChannel.challengeBytes && found.isClosed)
        }
    }

    /// Replays a rank's recorded bytes.
    @Test func aReplay() throws {
        try whileServing(closed: [3]) { port, service in
            let recorded = try record(port, service)
            let readings = service.readings(of: 3)
            for _ in 0..<10 {
                let descriptor = try #require(connect(port))
                defer { close(descriptor) }
                #expect(write(recorded, to: descriptor))
                let found = readAll(descriptor, seconds: 30)
                // The peer receives at most the challenge, which differs each time, and no tick.
                #expect(found.bytes.count <= WatchChannel.challengeBytes && found.isClosed)
            }
            #expect(service.readings(of: 3) == readings)
            #expect(eventually { service.closed == [3] })
        }
    }

    /// The bytes that an admitted rank 3 has sent. It closes the connection only after its message has been
    /// read: otherwise the connection may be reset before the watcher has read the proof, and no rank would
    /// have left.
    private func record(_ port: UInt16, _ service: Service) throws -> [UInt8] {
        let descriptor = try #require(connect(port))
        defer { close(descriptor) }
        var channel = WatchChannel(.rank(3), secret: Self.secret)
        var sent = channel.greeting
        #expect(write(sent, to: descriptor))
        while !channel.isOpen {
            var byte: UInt8 = 0
            guard recv(descriptor, &byte, 1, 0) == 1 else { break }
            let reply = try channel.receive([byte]).reply
            #expect(write(reply, to: descriptor))
            sent += reply
        }
        try #require(channel.isOpen)
        let message = channel.seal(
            Array(try JSONEncoder().encode(RankMessage(reading: RankActivity().reading))))
        #expect(write(message, to: descriptor))
        #expect(eventually { service.readings(of: 3) > 0 })
        return sent + message
    }

    @Test func aSecondConnectionOfARank() throws {
        try whileServing { _, service in
            // The peer has the secret, but claims to be a rank that is already served or that does not exist.
            for rank in [1, 0, Self.ranks, 1 << 20] {
                let endpoint = try #require(service.address.endpoints.first)
                let descriptor = try #require(connect(endpoint.port))
                let connection = WatchConnection(descriptor, .rank(rank), secret: Self.secret)
                var messages = 0
                let isClosed = eventually {
                    messages += connection.receive(WatcherMessage.self).count
                    return connection.isClosed
                }
                #expect(isClosed && messages == 0, "rank \(rank)")
            }
        }
    }

    /// Another watcher listens on the port that a rank was given.
    @Test func aForeignWatcher() throws {
        let foreign = WatchServer(
            addresses: ["127.0.0.1"], ranks: Self.ranks, secret: WatchSecret.random())
        nonisolated(unsafe) let own = foreign
        let (stop, ended) = (Flag(), DispatchSemaphore(value: 0))
        Thread {
            while !stop.isSet {
                own.wait(seconds: 0.05)
                #expect(own.receive(now: now()).isEmpty)
            }
            ended.signal()
        }.start()
        defer {
            stop.set()
            ended.wait()
        }
        let alone = WatcherAddress(endpoints: foreign.endpoints, secret: Self.secret)
        #expect(WatchLink.connect(to: alone, rank: 1) == nil)
        // The rank finds the correct watcher at the next address.
        try whileServing(closed: [3]) { _, service in
            let both = WatcherAddress(
                endpoints: foreign.endpoints + service.address.endpoints, secret: Self.secret)
            let connection = try #require(WatchLink.connect(to: both, rank: 3))
            connection.close()
            #expect(eventually { service.closed == [3] })
        }
    }

    private final class Flag: Sendable {
        private let value = Mutex(false)
        var isSet: Bool { value.withLock { $0 } }
        func set() { value.withLock { $0 = true } }
    }

    /// A peer that sends nothing is disconnected after the timeout.
    @Test func timeToAuthenticate() throws {
        let server = WatchServer(addresses: ["127.0.0.1"], ranks: 2, secret: Self.secret)
        let port = try #require(server.endpoints.first).port
        let descriptor = try #require(connect(port))
        defer { close(descriptor) }
        let isAccepted = eventually {
            server.wait(seconds: 0.05)
            return server.receive(now: 100).isEmpty && server.connectionCount == 1
        }
        #expect(isAccepted)
        #expect(server.receive(now: 104.9).isEmpty && server.connectionCount == 1)
        #expect(server.receive(now: 105.1).isEmpty && server.connectionCount == 0)
    }
}
