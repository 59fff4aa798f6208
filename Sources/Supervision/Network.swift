import Foundation
import Records

/// The network interfaces of this host, and the routes to other hosts.
package enum Network {
    /// IPv4 addresses of interfaces that are up.
    package static func interfaces() -> [HostReport.Interface] {
        HostNetwork.own.interfaces.map {
            HostReport.Interface(name: $0.name, address: $0.address, prefix: $0.prefix)
        }
    }

    /// The source address for packets to a host, according to the kernel's routes. No packet is sent.
    package static func sourceAddress(towards host: String) -> String? {
        var hints = addrinfo()
        hints.ai_family = AF_INET
        hints.ai_socktype = Int32(SOCK_DGRAM.rawValue)
        var list: UnsafeMutablePointer<addrinfo>?
        guard getaddrinfo(host, "9", &hints, &list) == 0, let first = list?.pointee else { return nil }
        defer { freeaddrinfo(list) }
        return HostNetwork.sourceAddress(towards: text(number(first.ai_addr)))
    }

    /// "10.0.0.0/16" for an address in that network; nil if the address is malformed.
    package static func network(_ address: String, prefix: Int) -> String? {
        var number = in_addr()
        guard inet_pton(AF_INET, address, &number) == 1, (0...32).contains(prefix) else { return nil }
        let mask = prefix == 0 ? 0 : UInt32.max << (32 - UInt32(prefix))
        return "\(text(UInt32(bigEndian: number.s_addr) & mask))/\(prefix)"
    }

    /// The networks through which every host reaches the others. Open MPI must be restricted to them, because
    /// it considers every interface usable, including docker0.
    package static func shared(_ reports: [HostReport]) -> [String] {
        var networks: [String] = []
        for report in reports {
            for (peer, source) in report.routes.sorted(by: { $0.key < $1.key }) where peer != report.host {
                guard let interface = report.interfaces.first(where: { $0.address == source }),
                    !source.hasPrefix("127."),
                    let network = network(source, prefix: interface.prefix), !networks.contains(network)
                else { continue }
                networks.append(network)
            }
        }
        return networks
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
