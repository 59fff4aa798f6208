import Communication
import Configuration

/// The algorithm by which a range of gradients reaches the rank that owns it.
package enum ReductionRoute: Equatable, Sendable {
    /// Open MPI's non-blocking reduce on more than two ranks: recursive halving, then a gather to the owner
    /// (Thakur, Rabenseifner and Gropp, "Optimization of Collective Communication Operations in MPICH",
    /// International Journal of High Performance Computing Applications 19, 2005).
    case halving
    /// Every rank sends directly to the owner: `HalfPrecisionExchange`, and the reduce of two ranks.
    case direct
    /// Without sharding: a ring all-reduce.
    case ring

    package init(sharding: Sharding, reduceDType: ReduceDType, ranks: Int) {
        if reduceDType == .bf16 || (sharding == .optimizer && ranks == 2) {
            self = .direct
        } else {
            self = sharding == .none ? .ring : .halving
        }
    }

    /// The number of times each host's link carries the bytes of the range.
    package struct Load: Equatable, Sendable {
        package var incoming: [Double]
        package var outgoing: [Double]

        package init(incoming: [Double], outgoing: [Double]) {
            (self.incoming, self.outgoing) = (incoming, outgoing)
        }
    }

    /// The load that a range owned by rank `owner` puts on the links.
    package func load(owner: Int, _ layout: RankLayout) -> Load {
        let zeros = Array(repeating: 0.0, count: layout.hosts)
        var load = Load(incoming: zeros, outgoing: zeros)
        guard layout.hosts > 1 else { return load }
        func send(_ part: Double, from: Int, to: Int) {
            let (from, to) = (layout.host(of: from), layout.host(of: to))
            guard from != to else { return }
            load.outgoing[from] += part
            load.incoming[to] += part
        }
        switch self {
        case .direct: for rank in 0..<layout.ranks { send(1, from: rank, to: owner) }
        case .halving: Self.halve(owner: owner, ranks: layout.ranks, send)
        case .ring:
            let each = 2 * (1 - 1 / Double(layout.ranks))
            load = Load(incoming: zeros.map { $0 + each }, outgoing: zeros.map { $0 + each })
        }
        return load
    }

    /// The messages of `halving`, as fractions of the range.
    private static func halve(
        owner: Int, ranks: Int, _ send: (_ part: Double, _ from: Int, _ to: Int) -> Void
    ) {
        let depth = Int.bitWidth - 1 - ranks.leadingZeroBitCount
        let even = 1 << depth
        let rest = ranks - even
        // If the number of ranks is not a power of two, the excess ranks form pairs with others, share the
        // work and drop out: the odd rank of each pair.
        for rank in stride(from: 0, to: 2 * rest, by: 2) {
            send(0.5, rank, rank + 1)
            send(0.5, rank + 1, rank)
            send(0.5, rank + 1, rank)
        }
        func rank(_ place: Int) -> Int { place < rest ? 2 * place : place + rest }
        for place in 0..<even {
            for step in 0..<depth { send(1 / Double(2 << step), rank(place), rank(place ^ (1 << step))) }
        }
        // An owner that has dropped out takes the place of rank 0 in the gather.
        let isDone = owner < 2 * rest && owner % 2 == 1
        let root = isDone ? 0 : owner < 2 * rest ? owner / 2 : owner - rest
        func gathering(_ place: Int) -> Int { isDone && place == 0 ? owner : rank(place) }
        if isDone { send(1 / Double(even), 0, owner) }
        for step in (0..<depth).reversed() {
            for distance in 1 << step..<2 << step {
                let (from, to) = (distance ^ root, (distance ^ (1 << step)) ^ root)
                send(1 / Double(2 << step), gathering(from), gathering(to))
            }
        }
    }

    /// Seconds by which latency delays the last byte, in addition to the transfer time on the links.
    package func latency(bytes: Double, _ network: NetworkModel, _ layout: RankLayout) -> Double {
        switch self {
        case .direct: layout.hosts > 1 ? network.start(bytes) : 0
        case .halving: 2 * Double(layout.treeDepth) * network.start(bytes / 2)
        case .ring: 2 * Double(layout.hosts - 1) * network.start(bytes / Double(layout.ranks))
        }
    }
}
