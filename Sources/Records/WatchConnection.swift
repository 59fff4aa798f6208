import Foundation

/// A TCP connection that carries the messages of a `WatchChannel`. No operation blocks.
package final class WatchConnection {
    package let descriptor: Int32
    package private(set) var isClosed = false
    /// Why the connection was closed, if the peer failed to authenticate.
    package private(set) var failure: WatchChannel.Failure?
    private var channel: WatchChannel
    /// Bytes that the kernel has not accepted yet.
    private var outgoing: [UInt8] = []

    /// Maximum bytes read per call, so that no connection starves the others.
    private static let share = 1 << 16
    /// Maximum bytes queued for a peer that does not read; beyond this the connection is closed. The
    /// heartbeat timeout for such a peer has expired by then.
    private static let backlog = 1 << 16

    /// Takes ownership of a connected socket.
    package init(_ descriptor: Int32, _ role: WatchChannel.Role, secret: WatchSecret) {
        self.descriptor = descriptor
        channel = WatchChannel(role, secret: secret)
        _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK)
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
        var on: Int32 = 1
        setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<Int32>.size))
        outgoing = channel.greeting
        flush()
    }

    deinit { Foundation.close(descriptor) }

    /// Whether both ends have proven that they belong to the same job.
    package var isOpen: Bool { channel.isOpen && !isClosed }
    /// The rank at the other end, or this rank; authenticated once the connection is open.
    var rank: Int? { channel.rank }
    var wantsToWrite: Bool { !outgoing.isEmpty && !isClosed }

    package func close() {
        isClosed = true
        _ = shutdown(descriptor, Int32(SHUT_RDWR))
    }

    /// Sends a message; does nothing if the peer is not authenticated.
    package func send(_ message: some Encodable) {
        guard isOpen, let payload = try? JSONEncoder().encode(message),
            payload.count <= WatchChannel.longestPayload
        else { return }
        outgoing += channel.seal(Array(payload))
        flush()
        if outgoing.count > Self.backlog { close() }
    }

    /// Sends as many bytes as the kernel accepts without blocking.
    func flush() {
        var sent = 0
        defer { outgoing.removeFirst(sent) }
        while sent < outgoing.count, !isClosed {
            let count = outgoing[sent...].withUnsafeBytes {
                Foundation.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            if count < 0 && errno == EINTR { continue }
            if count < 0 && errno == EAGAIN { return }
            guard count > 0 else { return close() }
            sent += count
        }
    }

    /// The received messages, decoded. Messages that cannot be decoded are skipped.
    package func receive<Message: Decodable>(_ type: Message.Type) -> [Message] {
        var messages: [Message] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        var total = 0
        while !isClosed, total < Self.share {
            let count = recv(descriptor, &buffer, buffer.count, 0)
            if count < 0 && errno == EINTR { continue }
            if count < 0 && errno == EAGAIN { break }
            guard count > 0, let received = take(buffer[..<count]) else {
                close()
                break
            }
            total += count
            messages += received.payloads.compactMap {
                try? JSONDecoder().decode(type, from: Data($0))
            }
            outgoing += received.reply
            flush()
        }
        return messages
    }

    private func take(_ bytes: ArraySlice<UInt8>) -> WatchChannel.Received? {
        do throws(WatchChannel.Failure) {
            return try channel.receive(bytes)
        } catch {
            failure = error
            return nil
        }
    }
}

/// The subset of TCP over IPv4 that monitoring needs.
package enum TCP {
    /// Why a connection could not be established.
    enum ConnectionFailure: Error {
        /// The connection was refused, or there is no route.
        case refused
        case timedOut
    }

    /// Listens on an address of this host, on a port that the kernel chooses.
    static func listen(at host: String) -> (descriptor: Int32, port: UInt16)? {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return nil }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isKnown = inet_pton(AF_INET, host, &address.sin_addr) == 1
        let isBound = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                isKnown && bind(descriptor, $0, length) == 0 && Foundation.listen(descriptor, 1024) == 0
                    && getsockname(descriptor, $0, &length) == 0
            }
        }
        guard isBound else {
            Foundation.close(descriptor)
            return nil
        }
        _ = fcntl(descriptor, F_SETFL, O_NONBLOCK)
        return (descriptor, UInt16(bigEndian: address.sin_port))
    }

    static func connect(
        _ host: String, _ port: UInt16, timeout: Double
    ) throws(ConnectionFailure) -> Int32 {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw .refused }
        _ = fcntl(descriptor, F_SETFL, O_NONBLOCK)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        guard inet_pton(AF_INET, host, &address.sin_addr) == 1 else {
            Foundation.close(descriptor)
            throw .refused
        }
        let started = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Foundation.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        if started == 0 { return descriptor }
        guard errno == EINPROGRESS else {
            Foundation.close(descriptor)
            throw .refused
        }
        var request = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
        var error: Int32 = -1
        var length = socklen_t(MemoryLayout<Int32>.size)
        let isDone = poll(&request, 1, Int32(timeout * 1000)) == 1
        if isDone, getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &error, &length) == 0, error == 0 {
            return descriptor
        }
        Foundation.close(descriptor)
        throw isDone ? .refused : .timedOut
    }
}
