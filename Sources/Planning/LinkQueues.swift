/// What the links of all hosts have still to carry, in both directions, while ranks compute.
///
/// A link is a queue: what is handed to it drains at 1/β, and, since the processor that computes also drives the
/// transfer, computing takes γ longer for each byte of its rank that moves meanwhile.
struct LinkQueues {
    let network: NetworkModel
    let layout: RankLayout
    /// Bytes that each host has still to receive and to send.
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

    /// Bytes in the fullest queue before what was queued `later` begins.
    func longest(before later: LinkQueues? = nil) -> Double {
        func most(_ queues: [Double], _ later: [Double]?) -> Double {
            queues.indices.map { queues[$0] - (later?[$0] ?? 0) }.max() ?? 0
        }
        return max(0, most(incoming, later?.incoming), most(outgoing, later?.outgoing))
    }

    /// Drains the queues while a rank computes for so long; returns by how much longer that takes.
    mutating func compute(_ seconds: Double) -> Double {
        guard seconds > 0 else { return 0 }
        let perByte = network.perByteWhileComputing(layout.perHost)
        var driving = 0.0
        // t = seconds + γ·moved(t), which rounds settle, since γ·moved(t) is at most t / 2.
        for _ in 0..<30 {
            let most = (seconds + driving) / perByte
            let moved = zip(incoming, outgoing).reduce(0) { $0 + (min($1.0, most) + min($1.1, most)) / 2 }
            driving = network.drivingSecondsPerByte * moved / Double(layout.ranks)
        }
        drain((seconds + driving) / perByte)
        return driving
    }

    /// Waits until so many bytes of each queue are gone; returns the seconds.
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
