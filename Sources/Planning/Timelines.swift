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

/// Models the all-gather of weights on the links of all hosts during the forward pass. All weights are
/// enqueued when the pass begins, in the order in which it reads them, and it waits for a weight that is
/// still in a queue.
enum GatherTimeline {
    /// A range of weights to transfer from its owner to all hosts.
    struct Piece: Equatable {
        /// Seconds of computation before the pass reads the range.
        var need: Double
        var owner: Int
        var bytes: Double
    }

    /// - Parameter pieces: the ranges in the order in which they are read.
    static func run(_ pieces: [Piece], _ network: NetworkModel, _ layout: RankLayout)
        -> ReductionTimeline.Outcome
    {
        var outcome = ReductionTimeline.Outcome()
        guard layout.hosts > 1, let first = pieces.first else { return outcome }
        var queues = LinkQueues(network, layout)
        let loads = (0..<layout.hosts).map { load(from: $0, layout) }
        for piece in pieces { queues.add(piece.bytes, loads[layout.host(of: piece.owner)]) }
        var later = queues
        outcome.exposed = network.start(first.bytes)
        var now = 0.0
        for piece in pieces {
            outcome.driving += queues.compute(piece.need - now)
            now = max(now, piece.need)
            later.add(-piece.bytes, loads[layout.host(of: piece.owner)])
            outcome.exposed += queues.wait(for: queues.longest(before: later))
        }
        return outcome
    }

    /// The owner's host sends one copy to every other host.
    private static func load(from host: Int, _ layout: RankLayout) -> ReductionRoute.Load {
        var load = ReductionRoute.Load(
            incoming: Array(repeating: 1, count: layout.hosts),
            outgoing: Array(repeating: 0, count: layout.hosts))
        load.incoming[host] = 0
        load.outgoing[host] = Double(layout.hosts - 1)
        return load
    }
}
