/// Models the bytes that remain on the links of all hosts, in both directions, while ranks compute.
///
/// A link is a queue that drains at 1/β. Since the processor that computes also drives the transfer,
/// computation takes longer by γ for each byte of its rank that moves meanwhile.
struct LinkQueues {
    let network: NetworkModel
    let layout: RankLayout
    /// Bytes that each host has yet to receive and to send.
    private(set) var incoming: [Double]
    private(set) var outgoing: [Double]

    init(_ network: NetworkModel, _ layout: RankLayout) {
        (self.network, self.layout) = (network, layout)
        incoming = Array(repeating: 0, count: layout.hosts)
        outgoing = incoming
    }

    mutating func add(_ bytes: Double, _ load: ReductionRoute.Load) {
        for host in 0..<layout.hosts {
            incoming[host] += bytes * load.incoming[host]
            outgoing[host] += bytes * load.outgoing[host]
        }
    }

    /// Bytes in the longest queue that precede those queued in `later`.
    func longest(before later: LinkQueues? = nil) -> Double {
        func most(_ queues: [Double], _ later: [Double]?) -> Double {
            queues.indices.map { queues[$0] - (later?[$0] ?? 0) }.max() ?? 0
        }
        return max(0, most(incoming, later?.incoming), most(outgoing, later?.outgoing))
    }

    /// Drains the queues while a rank computes for `seconds`; returns the additional seconds that the
    /// computation takes.
    mutating func compute(_ seconds: Double) -> Double {
        guard seconds > 0 else { return 0 }
        let perByte = network.perByteWhileComputing(layout.perHost)
        var driving = 0.0
        // Solve t = seconds + γ·moved(t) by fixed-point iteration, which converges because γ·moved(t) is at
        // most t / 2.
        for _ in 0..<30 {
            let most = (seconds + driving) / perByte
            let moved = zip(incoming, outgoing).reduce(0) { $0 + (min($1.0, most) + min($1.1, most)) / 2 }
            driving = network.drivingSecondsPerByte * moved / Double(layout.ranks)
        }
        drain((seconds + driving) / perByte)
        return driving
    }

    /// Waits until this number of bytes of each queue has been transferred; returns the seconds.
    mutating func wait(for bytes: Double) -> Double {
        drain(bytes)
        return bytes * network.perByte(layout.perHost)
    }

    private mutating func drain(_ most: Double) {
        for host in incoming.indices {
            incoming[host] = max(0, incoming[host] - most)
            outgoing[host] = max(0, outgoing[host] - most)
        }
    }
}
