/// The mapping of ranks to hosts, and the route of weights from their owner to all ranks.
package struct HostMap: Equatable, Sendable {
    /// The ranks of each host.
    package let hosts: [[Int]]
    private let hostOfRank: [Int]

    /// - Parameter leaders: for each rank, the lowest rank on its host.
    package init(leaders: [Int]) {
        let ranks = Dictionary(grouping: leaders.indices) { leaders[$0] }
        hosts = ranks.keys.sorted().map { ranks[$0]! }
        var hostOfRank = Array(repeating: 0, count: leaders.count)
        for (host, members) in hosts.enumerated() { for rank in members { hostOfRank[rank] = host } }
        self.hostOfRank = hostOfRank
    }

    /// The rank of a host that receives from `owner` on behalf of the host. Owners on the same host use
    /// different ranks if possible.
    private func gate(_ host: Int, for owner: Int) -> Int {
        if host == hostOfRank[owner] { return owner }
        let place = hosts[hostOfRank[owner]].firstIndex(of: owner)!
        return hosts[host][place % hosts[host].count]
    }

    /// The rank from which `rank` receives the weights of `owner`; nil if it is the owner.
    package func source(of owner: Int, for rank: Int) -> Int? {
        let gate = gate(hostOfRank[rank], for: owner)
        return rank == owner ? nil : rank == gate ? owner : gate
    }

    /// The ranks to which `rank` sends the weights of `owner`, other hosts first.
    package func targets(of owner: Int, from rank: Int) -> [Int] {
        let host = hostOfRank[rank]
        guard rank == gate(host, for: owner) else { return [] }
        let neighbours = hosts[host].filter { $0 != rank }
        guard rank == owner else { return neighbours }
        // Each owner starts with a different host, so that they do not all send to the same one.
        let others = (1..<hosts.count).map { (host + $0) % hosts.count }
        return others.map { gate($0, for: owner) } + neighbours
    }
}
