/// Gradients on the links of all hosts while the backward pass goes on.
///
/// A link is a queue: what is handed to it drains at 1/β, and, since the processor that computes also drives the
/// transfer, the pass takes γ longer for each byte of its rank that moves meanwhile. What is left in the fullest queue at
/// the end of the pass is waited for.
struct ReductionTimeline {
    /// A run of gradients on its way to one rank.
    struct Piece: Equatable {
        /// Seconds of computing after which the run is whole.
        var ready: Double
        var owner: Int
        var bytes: Double
    }

    /// Seconds by which the pass takes longer, and those that are waited for after it.
    struct Outcome: Equatable {
        var driving = 0.0
        var exposed = 0.0
    }

    let network: NetworkModel
    let layout: RankLayout
    let route: ReductionRoute
    /// Bytes that each host has still to receive and to send.
    private var incoming: [Double]
    private var outgoing: [Double]
    /// Of the owners so far.
    private var loads: [Int: ReductionRoute.Load] = [:]

    init(_ network: NetworkModel, _ layout: RankLayout, _ route: ReductionRoute) {
        (self.network, self.layout, self.route) = (network, layout, route)
        incoming = Array(repeating: 0, count: layout.hosts)
        outgoing = incoming
    }

    /// - Parameters:
    ///   - pieces: in the order in which they start.
    ///   - end: seconds of computing at the end of the pass.
    static func run(
        _ pieces: [Piece], end: Double, _ network: NetworkModel, _ layout: RankLayout, _ route: ReductionRoute
    ) -> Outcome {
        guard layout.hosts > 1, let last = pieces.last else { return Outcome() }
        var timeline = ReductionTimeline(network, layout, route)
        var outcome = Outcome()
        var now = 0.0
        for piece in pieces {
            outcome.driving += timeline.compute(piece.ready - now)
            now = piece.ready
            timeline.add(piece)
        }
        outcome.driving += timeline.compute(end - now)
        let left = max(timeline.incoming.max() ?? 0, timeline.outgoing.max() ?? 0)
        outcome.exposed =
            left * network.perByte(layout.perHost) + route.latency(bytes: last.bytes, network, layout)
        return outcome
    }

    private mutating func add(_ piece: Piece) {
        let load = loads[piece.owner] ?? route.load(owner: piece.owner, layout)
        loads[piece.owner] = load
        for host in 0..<layout.hosts {
            incoming[host] += piece.bytes * load.incoming[host]
            outgoing[host] += piece.bytes * load.outgoing[host]
        }
    }

    /// Drains the queues while a rank computes for so long; returns by how much longer that takes.
    private mutating func compute(_ seconds: Double) -> Double {
        guard seconds > 0 else { return 0 }
        let perByte = network.perByteWhileComputing(layout.perHost)
        var driving = 0.0
        // t = seconds + γ·moved(t), which rounds settle, since γ·moved(t) is at most t / 2.
        for _ in 0..<30 {
            let most = (seconds + driving) / perByte
            let moved = zip(incoming, outgoing).reduce(0) { $0 + (min($1.0, most) + min($1.1, most)) / 2 }
            driving = network.drivingSecondsPerByte * moved / Double(layout.ranks)
        }
        let most = (seconds + driving) / perByte
        for host in incoming.indices {
            incoming[host] = max(0, incoming[host] - most)
            outgoing[host] = max(0, outgoing[host] - most)
        }
        return driving
    }
}
