/// The way of a run of gradients to the rank that owns it.
public enum ReductionRoute: Equatable, Sendable {
    /// Open MPI's non-blocking reduce on up to 4 ranks: from rank to rank in segments, each adding its own.
    case chain
    /// The same on more ranks: a binomial tree, without segments.
    case binomial
    /// `HalfPrecisionExchange`: every rank sends straight to the owner.
    case direct
    /// Without sharding: a ring that leaves the sum everywhere.
    case ring

    public init(sharding: Sharding, reduceDType: ReduceDType, ranks: Int) {
        if reduceDType == .bf16 {
            self = .direct
        } else if sharding == .none {
            self = .ring
        } else {
            self = ranks > 4 ? .binomial : .chain
        }
    }

    /// How often each host's link carries the run's bytes.
    public struct Load: Equatable, Sendable {
        public var incoming: [Double]
        public var outgoing: [Double]

        public init(incoming: [Double], outgoing: [Double]) {
            (self.incoming, self.outgoing) = (incoming, outgoing)
        }
    }

    /// What a run that rank `owner` owns puts on the links.
    public func load(owner: Int, _ layout: RankLayout) -> Load {
        let hosts = layout.hosts
        var load = Load(
            incoming: Array(repeating: 0, count: hosts), outgoing: Array(repeating: 0, count: hosts))
        guard hosts > 1 else { return load }
        guard self != .ring else {
            let each = 2 * (1 - 1 / Double(layout.ranks))
            load.incoming = Array(repeating: each, count: hosts)
            load.outgoing = load.incoming
            return load
        }
        // The owner changes places with rank 0; all others keep theirs, so the same ranks stand inside of every tree.
        func rank(_ place: Int) -> Int { place == 0 ? owner : place == owner ? 0 : place }
        for place in 1..<layout.ranks {
            let target =
                switch self {
                case .chain: place - 1
                case .binomial: place & (place - 1)
                case .direct, .ring: 0
                }
            let (from, to) = (layout.host(of: rank(place)), layout.host(of: rank(target)))
            guard from != to else { continue }
            load.outgoing[from] += 1
            load.incoming[to] += 1
        }
        return load
    }

    /// Seconds by which the last byte comes later than the links alone would let it.
    public func latency(bytes: Double, _ network: NetworkModel, _ layout: RankLayout) -> Double {
        switch self {
        case .chain: Double(layout.hosts - 1) * network.latencySeconds
        case .binomial: Double(layout.treeDepth) * network.start(bytes)
        case .direct: layout.hosts > 1 ? network.start(bytes) : 0
        case .ring: 2 * Double(layout.hosts - 1) * network.start(bytes / Double(layout.ranks))
        }
    }

    /// Bytes that an element takes on its way.
    var elementBytes: Double { self == .direct ? 2 : 4 }
}
