import Foundation

/// A TCP connection that carries lines, and on which nothing ever waits.
final class LineConnection {
    let descriptor: Int32
    private(set) var isClosed = false
    private var incoming: [UInt8] = []
    private var outgoing: [UInt8] = []

    /// A line longer than this is no line of ours.
    private static let longest = 1 << 16

    /// Takes over a connected socket.
    init(_ descriptor: Int32) {
        self.descriptor = descriptor
        _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK)
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
        var on: Int32 = 1
        setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<Int32>.size))
    }

    deinit { close(descriptor) }

    var wantsToWrite: Bool { !outgoing.isEmpty && !isClosed }

    func send(_ value: some Encodable) {
        guard let line = try? JSONEncoder().encode(value) else { return }
        outgoing += line + [UInt8(ascii: "\n")]
        flush()
    }

    /// Sends as much as the network takes now.
    func flush() {
        while !outgoing.isEmpty, !isClosed {
            let count = outgoing.withUnsafeBytes {
                Foundation.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            if count < 0 && errno == EINTR { continue }
            if count < 0 && errno == EAGAIN { return }
            guard count > 0 else { return isClosed = true }
            outgoing.removeFirst(count)
        }
    }

    /// The whole lines that have come in, decoded; one that says nothing known is left out.
    func receive<Message: Decodable>(_ type: Message.Type) -> [Message] {
        var buffer = [UInt8](repeating: 0, count: 4096)
        while !isClosed {
            let count = recv(descriptor, &buffer, buffer.count, 0)
            if count < 0 && errno == EINTR { continue }
            if count < 0 && errno == EAGAIN { break }
            guard count > 0, incoming.count < Self.longest else {
                isClosed = true
                break
            }
            incoming += buffer[..<count]
        }
        var messages: [Message] = []
        while let end = incoming.firstIndex(of: UInt8(ascii: "\n")) {
            if let message = try? JSONDecoder().decode(type, from: Data(incoming[..<end])) {
                messages.append(message)
            }
            incoming.removeSubrange(...end)
        }
        return messages
    }
}

/// TCP over IPv4, as far as the watching of ranks needs it.
enum TCP {
    /// A socket that listens on a port of the kernel's choice, on all interfaces.
    static func listen() -> (descriptor: Int32, port: UInt16)? {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return nil }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isBound = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, length) == 0 && Foundation.listen(descriptor, 1024) == 0
                    && getsockname(descriptor, $0, &length) == 0
            }
        }
        guard isBound else {
            close(descriptor)
            return nil
        }
        _ = fcntl(descriptor, F_SETFL, O_NONBLOCK)
        return (descriptor, UInt16(bigEndian: address.sin_port))
    }

    /// nil where nothing answers in time.
    static func connect(_ host: String, _ port: UInt16, timeout: Double) -> Int32? {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return nil }
        _ = fcntl(descriptor, F_SETFL, O_NONBLOCK)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        guard inet_pton(AF_INET, host, &address.sin_addr) == 1 else {
            close(descriptor)
            return nil
        }
        let started = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Foundation.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        if started == 0 { return descriptor }
        var request = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
        var error: Int32 = -1
        var length = socklen_t(MemoryLayout<Int32>.size)
        guard errno == EINPROGRESS, poll(&request, 1, Int32(timeout * 1000)) == 1,
            getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &error, &length) == 0, error == 0
        else {
            close(descriptor)
            return nil
        }
        return descriptor
    }

    /// This host's IPv4 addresses, the loopback's last.
    static func addresses() -> [String] {
        var list: UnsafeMutablePointer<ifaddrs>?
        guard getifaddrs(&list) == 0 else { return ["127.0.0.1"] }
        defer { freeifaddrs(list) }
        var found: [String] = []
        var next = list
        while let entry = next?.pointee {
            next = entry.ifa_next
            guard let address = entry.ifa_addr, address.pointee.sa_family == sa_family_t(AF_INET),
                entry.ifa_flags & UInt32(IFF_UP) != 0
            else { continue }
            var text = [CChar](repeating: 0, count: Int(INET_ADDRSTRLEN))
            address.withMemoryRebound(to: sockaddr_in.self, capacity: 1) {
                var number = $0.pointee.sin_addr
                _ = inet_ntop(AF_INET, &number, &text, socklen_t(INET_ADDRSTRLEN))
            }
            found.append(
                String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self))
        }
        let isLocal = { (address: String) in address.hasPrefix("127.") }
        return found.filter { !isLocal($0) } + found.filter(isLocal)
    }
}
