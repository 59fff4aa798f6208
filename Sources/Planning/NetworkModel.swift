import Foundation

/// How the ranks of a job lie on hosts: the same number on each, one host's after the other's.
package struct RankLayout: Codable, Equatable, Sendable {
    package var hosts: Int
    package var perHost: Int

    package init(hosts: Int, perHost: Int = 1) {
        precondition(hosts > 0 && perHost > 0, "\(hosts) hosts with \(perHost) ranks each")
        (self.hosts, self.perHost) = (hosts, perHost)
    }

    package var ranks: Int { hosts * perHost }
    package func host(of rank: Int) -> Int { rank / perHost }
    /// ⌈log₂ hosts⌉: the levels of a tree that cross the network.
    var treeDepth: Int { hosts == 1 ? 0 : Int.bitWidth - (hosts - 1).leadingZeroBitCount }
}

/// What messages between hosts cost: α + β·bytes (Hockney, "The communication challenge for MPP", Parallel Computing
/// 20, 1994), and γ, since over TCP the processor that computes also moves the data.
package struct NetworkModel: Codable, Equatable, Sendable {
    /// α: seconds of a short message, one way.
    package var latencySeconds: Double
    /// β: seconds a byte on a host's link, which carries as many in the other direction at the same time.
    package var secondsPerByte: Double
    /// γ: a rank's processor seconds for one byte sent and one received.
    package var drivingSecondsPerByte: Double

    package init(latencySeconds: Double, secondsPerByte: Double, drivingSecondsPerByte: Double) {
        self.latencySeconds = latencySeconds
        self.secondsPerByte = secondsPerByte
        self.drivingSecondsPerByte = drivingSecondsPerByte
    }

    package var bitsPerSecond: Double { 8 / secondsPerByte }

    /// Messages above this ask first whether they may come: Open MPI's btl_tcp_eager_limit.
    static let eagerBytes = 65_536.0

    /// Seconds until the first byte of a message is there: α, or 3α where sender and receiver agree first.
    func start(_ bytes: Double) -> Double { (bytes > Self.eagerBytes ? 3 : 1) * latencySeconds }

    /// Seconds a byte of a host's link while its ranks do nothing else: the wire, or the processors that drive it.
    func perByte(_ perHost: Int) -> Double { max(secondsPerByte, drivingSecondsPerByte / Double(perHost)) }

    /// The same while they compute: transfers get no more than half of a processor.
    func perByteWhileComputing(_ perHost: Int) -> Double {
        max(secondsPerByte, 2 * drivingSecondsPerByte / Double(perHost))
    }

    // MARK: Collectives

    // p ranks on M hosts, n bytes in all. One host has no network: 0.

    /// (p - 1)·(α + β·n/p): each rank passes its n/p bytes on around the ring, in p - 1 rounds; of each round one
    /// message crosses a host's link.
    package func ringAllGather(bytes: Double, _ layout: RankLayout) -> Double {
        guard layout.hosts > 1, bytes > 0 else { return 0 }
        let block = bytes / Double(layout.ranks)
        return Double(layout.ranks - 1) * (start(block) + block * perByte(layout.perHost))
    }

    /// The all-gather that Open MPI 4.1 makes of n bytes: the ring, but on some numbers of ranks an exchange in pairs, in
    /// fewer rounds. From its second round on the memory that it sends has holes, which moves in one direction at a
    /// time: as if by 2·p - 3 blocks, where a ring takes p - 1. (4 hosts: 1.5 to 1.7 times as long as the ring was
    /// measured, 6 hosts 1.5 times.)
    package func allGather(bytes: Double, _ layout: RankLayout) -> Double {
        let p = layout.ranks
        let block = bytes / Double(p)
        let isLong = block >= 262_144
        let rounds: Int
        switch p {
        case 4, 6: rounds = isLong ? p / 2 : p - 1
        case 8..<16: rounds = Int.bitWidth - (p - 1).leadingZeroBitCount
        case 512..<1024: rounds = block < 1_048_576 && p % 2 == 0 ? p / 2 : p - 1
        case 1024...: rounds = p % 2 == 0 ? p / 2 : p - 1
        default: rounds = p - 1
        }
        guard rounds < p - 1, layout.hosts > 1, bytes > 0 else { return ringAllGather(bytes: bytes, layout) }
        return Double(rounds) * start(2 * block) + Double(2 * p - 3) * block * perByte(layout.perHost)
    }

    /// The same rounds as the ring all-gather's, with a sum in each.
    package func ringReduceScatter(bytes: Double, _ layout: RankLayout) -> Double {
        ringAllGather(bytes: bytes, layout)
    }

    /// 2·(p - 1)·(α + β·n/p).
    package func ringAllReduce(bytes: Double, _ layout: RankLayout) -> Double {
        ringReduceScatter(bytes: bytes, layout) + ringAllGather(bytes: bytes, layout)
    }

    /// ⌈log₂ M⌉·(α + β·n), by recursive doubling: what short messages take.
    package func treeAllReduce(bytes: Double, _ layout: RankLayout) -> Double {
        Double(layout.treeDepth) * (start(bytes) + bytes * perByte(layout.perHost))
    }

    /// The faster of the two, as MPI libraries choose.
    package func allReduce(bytes: Double, _ layout: RankLayout) -> Double {
        min(ringAllReduce(bytes: bytes, layout), treeAllReduce(bytes: bytes, layout))
    }
}
