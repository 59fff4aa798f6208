/// Models the reduction of gradients on the links of all hosts during the backward pass. The time to drain
/// the longest queue after the pass is exposed.
enum ReductionTimeline {
    /// A range of gradients to transfer to one rank.
    struct Piece: Equatable {
        /// Seconds of computation after which the range is complete.
        var ready: Double
        var owner: Int
        var bytes: Double
    }

    /// Additional seconds that the pass takes because it drives the transfers, and seconds of waiting that
    /// are not overlapped.
    struct Outcome: Equatable {
        var driving = 0.0
        var exposed = 0.0
    }

    /// - Parameters:
    ///   - pieces: in the order in which they start.
    ///   - end: seconds of computation until the end of the pass.
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
