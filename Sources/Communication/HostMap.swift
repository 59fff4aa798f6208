/// Which rank lies on which host, and by which way a piece of weights comes from its owner to every rank.
package struct HostMap: Equatable, Sendable {
    /// The ranks of each host.
    package let hosts: [[Int]]
    private let hostOfRank: [Int]

    /// - Parameter leaders: of each rank, the lowest rank on its host.
    package init(leaders: [Int]) {
        let ranks = Dictionary(grouping: leaders.indices) { leaders[$0] }
        hosts = ranks.keys.sorted().map { ranks[$0]! }
        var hostOfRank = Array(repeating: 0, count: leaders.count)
        for (host, members) in hosts.enumerated() { for rank in members { hostOfRank[rank] = host } }
        self.hostOfRank = hostOfRank
    }

    /// The rank of a host that receives from `owner` for all of it: another for each of an owner's host's ranks.
    private func gate(_ host: Int, for owner: Int) -> Int {
        if host == hostOfRank[owner] { return owner }
        let place = hosts[hostOfRank[owner]].firstIndex(of: owner)!
        return hosts[host][place % hosts[host].count]
    }

    /// Where `rank` receives what `owner` owns from; nil: it is the owner.
    package func source(of owner: Int, for rank: Int) -> Int? {
        let gate = gate(hostOfRank[rank], for: owner)
        return rank == owner ? nil : rank == gate ? owner : gate
    }

    /// Whom `rank` sends to what `owner` owns: other hosts first.
    package func targets(of owner: Int, from rank: Int) -> [Int] {
        let host = hostOfRank[rank]
        guard rank == gate(host, for: owner) else { return [] }
        let neighbours = hosts[host].filter { $0 != rank }
        guard rank == owner else { return neighbours }
        // Owners begin with different hosts, so that not all send to one at a time.
        let others = (1..<hosts.count).map { (host + $0) % hosts.count }
        return others.map { gate($0, for: owner) } + neighbours
    }
}
