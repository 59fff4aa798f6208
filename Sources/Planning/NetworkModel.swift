import Foundation

/// The placement of ranks on hosts: the same number on each host, in consecutive blocks.
package struct RankLayout: Codable, Equatable, Sendable {
    package var hosts: Int
    package var perHost: Int

    package init(hosts: Int, perHost: Int = 1) {
        precondition(hosts > 0 && perHost > 0, "\(hosts) hosts with \(perHost) ranks each")
        (self.hosts, self.perHost) = (hosts, perHost)
    }

    package var ranks: Int { hosts * perHost }
    package func host(of rank: Int) -> Int { rank / perHost }
    /// ⌈log₂ hosts⌉: the number of tree levels that cross the network.
    var treeDepth: Int { hosts == 1 ? 0 : Int.bitWidth - (hosts - 1).leadingZeroBitCount }
}

/// The cost of messages between hosts: α + β·bytes (Hockney, "The communication challenge for MPP", Parallel
/// Computing 20, 1994), and γ, since over TCP the processor that computes also moves the data.
package struct NetworkModel: Codable, Equatable, Sendable {
    /// α: one-way seconds of a short message.
    package var latencySeconds: Double
    /// β: seconds per byte on a host's link, which carries the same rate in the other direction at the same
    /// time.
    package var secondsPerByte: Double
    /// γ: a rank's processor seconds for one byte sent and one byte received.
    package var drivingSecondsPerByte: Double

    package init(latencySeconds: Double, secondsPerByte: Double, drivingSecondsPerByte: Double) {
        (self.latencySeconds, self.secondsPerByte) = (latencySeconds, secondsPerByte)
        self.drivingSecondsPerByte = drivingSecondsPerByte
    }

    package var bitsPerSecond: Double { 8 / secondsPerByte }

    /// Longer messages use the rendezvous protocol: Open MPI's btl_tcp_eager_limit, in bytes.
    static let eagerBytes = 65_536.0

    /// Seconds until the first byte of a message arrives: α, or 3α with the rendezvous handshake.
    func start(_ bytes: Double) -> Double { (bytes > Self.eagerBytes ? 3 : 1) * latencySeconds }

    /// Seconds per byte on a host's link while its ranks do nothing else, limited by the wire or by the
    /// processors that drive it.
    func perByte(_ perHost: Int) -> Double { max(secondsPerByte, drivingSecondsPerByte / Double(perHost)) }

    /// The same while the ranks compute: transfers get at most half of a processor.
    func perByteWhileComputing(_ perHost: Int) -> Double {
        max(secondsPerByte, 2 * drivingSecondsPerByte / Double(perHost))
    }

    // MARK: Collectives

    // p ranks on M hosts, n bytes in total. A single host uses no network: 0.

    /// (p - 1)·(α + β·n/p): each rank forwards its n/p bytes around the ring in p - 1 rounds. In each round
    /// one message crosses a host's link.
    package func ringAllGather(bytes: Double, _ layout: RankLayout) -> Double {
        guard layout.hosts > 1, bytes > 0 else { return 0 }
        let block = bytes / Double(layout.ranks)
        return Double(layout.ranks - 1) * (start(block) + block * perByte(layout.perHost))
    }

    /// The all-gather of n bytes in Open MPI 4.1: the ring, or for some numbers of ranks an algorithm with
    /// pairwise exchanges and fewer rounds. From its second round on, the memory that it sends is not
    /// contiguous and moves in only one direction at a time, which costs as much as 2·p - 3 blocks, compared
    /// with p - 1 for the ring. (Measured: 1.5 to 1.7 times the ring's time on 4 hosts, 1.5 times on 6
    /// hosts.)
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

    /// The same rounds as the ring all-gather, with an addition in each.
    package func ringReduceScatter(bytes: Double, _ layout: RankLayout) -> Double {
        ringAllGather(bytes: bytes, layout)
    }

    /// 2·(p - 1)·(α + β·n/p).
    package func ringAllReduce(bytes: Double, _ layout: RankLayout) -> Double {
        ringReduceScatter(bytes: bytes, layout) + ringAllGather(bytes: bytes, layout)
    }

    /// ⌈log₂ M⌉·(α + β·n), by recursive doubling, as used for short messages.
    package func treeAllReduce(bytes: Double, _ layout: RankLayout) -> Double {
        Double(layout.treeDepth) * (start(bytes) + bytes * perByte(layout.perHost))
    }

    /// The faster of the two, as MPI libraries choose.
    package func allReduce(bytes: Double, _ layout: RankLayout) -> Double {
        min(ringAllReduce(bytes: bytes, layout), treeAllReduce(bytes: bytes, layout))
    }
}
