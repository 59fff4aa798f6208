import Foundation

/// The IPv4 interfaces of this host, and the choice of those by which other hosts can reach it.
package struct HostNetwork: Sendable {
    package struct Interface: Codable, Sendable, Equatable {
        package var name: String
        package var address: String
        package var prefix: Int

        package init(name: String, address: String, prefix: Int) {
            (self.name, self.address, self.prefix) = (name, address, prefix)
        }

        var isLoopback: Bool { address.hasPrefix("127.") }

        /// Whether `other` lies in the interface's subnet.
        func reaches(_ other: String) -> Bool { HostNetwork.isMember(other, of: address, prefix) }
    }

    /// The interfaces that are up.
    package var interfaces: [Interface]

    package init(interfaces: [Interface]) { self.interfaces = interfaces }

    package static var own: HostNetwork {
        var list: UnsafeMutablePointer<ifaddrs>?
        guard getifaddrs(&list) == 0 else { return HostNetwork(interfaces: []) }
        defer { freeifaddrs(list) }
        var found: [Interface] = []
        var next = list
        while let entry = next?.pointee {
            next = entry.ifa_next
            guard let address = entry.ifa_addr, let mask = entry.ifa_netmask,
                address.pointee.sa_family == sa_family_t(AF_INET), entry.ifa_flags & UInt32(IFF_UP) != 0
            else { continue }
            found.append(
                Interface(
                    name: String(cString: entry.ifa_name), address: text(number(address)),
                    prefix: number(mask).nonzeroBitCount))
        }
        return HostNetwork(interfaces: found)
    }

    /// The source address that the kernel's routing table selects for packets to `destination`. Sends
    /// nothing: it connects a UDP socket and reads its local address.
    package static func sourceAddress(towards destination: String) -> String? {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(9).bigEndian
        guard inet_pton(AF_INET, destination, &address.sin_addr) == 1 else { return nil }
        let descriptor = socket(AF_INET, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isKnown = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, length) == 0 && getsockname(descriptor, $0, &length) == 0
            }
        }
        return isKnown ? text(UInt32(bigEndian: address.sin_addr.s_addr)) : nil
    }

    /// The addresses of this host at which the job's other hosts can reach it, and to which a listener has to
    /// be bound.
    ///
    /// - Parameters:
    ///   - peers: the addresses of each of the other hosts; empty if the job runs on this host only.
    ///   - chosen: the value of Open MPI's `btl_tcp_if_include`: interface names, or networks such as
    ///     "10.0.0.0/16".
    ///   - route: returns the source address for packets to the given address.
    package func listeningAddresses(
        peers: [[String]], chosen: String?, route: (String) -> String? = sourceAddress
    ) -> [String] {
        guard !peers.isEmpty else { return ["127.0.0.1"] }
        if let chosen {
            let words = chosen.split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces) }
            let named = interfaces.filter { interface in
                words.contains { $0 == interface.name || Self.isMember(interface.address, of: $0) }
            }
            if !named.isEmpty { return named.map(\.address) }
        }
        // Skip the peers' addresses that this host has too: bridges such as docker0 have the same address on
        // every host and do not connect hosts.
        let own = Set(interfaces.map(\.address))
        var found: [String] = []
        for peer in peers {
            let reachable = peer.filter { !own.contains($0) && !$0.hasPrefix("127.") }
            let near = interfaces.filter { interface in
                !interface.isLoopback && reachable.contains { interface.reaches($0) }
            }
            let addresses = near.isEmpty ? reachable.compactMap(route) : near.map(\.address)
            for address in addresses where own.contains(address) && !found.contains(address) {
                found.append(address)
            }
        }
        return found
    }

    // MARK: Addresses as numbers

    /// Whether an address lies in a network such as "10.0.0.0/16".
    private static func isMember(_ address: String, of network: String) -> Bool {
        let parts = network.split(separator: "/")
        guard parts.count == 2, let prefix = Int(parts[1]) else { return false }
        return isMember(address, of: String(parts[0]), prefix)
    }

    private static func isMember(_ address: String, of network: String, _ prefix: Int) -> Bool {
        var (first, second) = (in_addr(), in_addr())
        guard inet_pton(AF_INET, address, &first) == 1, inet_pton(AF_INET, network, &second) == 1,
            (1...32).contains(prefix)
        else { return false }
        let mask = UInt32.max << (32 - UInt32(prefix))
        return (UInt32(bigEndian: first.s_addr) ^ UInt32(bigEndian: second.s_addr)) & mask == 0
    }

    private static func number(_ address: UnsafePointer<sockaddr>) -> UInt32 {
        address.withMemoryRebound(to: sockaddr_in.self, capacity: 1) {
            UInt32(bigEndian: $0.pointee.sin_addr.s_addr)
        }
    }

    private static func text(_ number: UInt32) -> String {
        [24, 16, 8, 0].map { String(number >> UInt32($0) & 0xff) }.joined(separator: ".")
    }
}
