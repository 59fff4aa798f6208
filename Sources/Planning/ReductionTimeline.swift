/// Gradients on the links of all hosts while the backward pass goes on: what is left in the fullest queue at the end of
/// the pass is waited for.
enum ReductionTimeline {
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

    /// - Parameters:
    ///   - pieces: in the order in which they start.
    ///   - end: seconds of computing at the end of the pass.
    static func run(
        _ pieces: [Piece], end: Double, _ network: NetworkModel, _ layout: RankLayout, _ route: ReductionRoute
    ) -> Outcome {
        guard layout.hosts > 1, let last = pieces.last else { return Outcome() }
        var queues = LinkQueues(network, layout)
        var loads: [Int: ReductionRoute.Load] = [:]
        var outcome = Outcome()
        var now = 0.0
        for piece in pieces {
            outcome.driving += queues.compute(piece.ready - now)
            now = piece.ready
            let load = loads[piece.owner] ?? route.load(owner: piece.owner, layout)
            loads[piece.owner] = load
            queues.add(piece.bytes, load)
        }
        outcome.driving += queues.compute(end - now)
        outcome.exposed =
            queues.wait(for: queues.longest()) + route.latency(bytes: last.bytes, network, layout)
        return outcome
    }
}
