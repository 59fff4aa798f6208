/// The way of a run of gradients to the rank that owns it, and what that puts on the links.
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

    /// Bytes that cross hosts' links.
    public struct Traffic: Equatable, Sendable {
        /// Into the owner's host, and out of it.
        public var ownerIn = 0.0, ownerOut = 0.0
        /// Of each other host, on average.
        public var otherIn = 0.0, otherOut = 0.0

        public init(ownerIn: Double = 0, ownerOut: Double = 0, otherIn: Double = 0, otherOut: Double = 0) {
            (self.ownerIn, self.ownerOut, self.otherIn, self.otherOut) = (
                ownerIn, ownerOut, otherIn, otherOut
            )
        }
    }

    /// What `bytes` of every rank put on the links.
    public func traffic(bytes: Double, _ layout: RankLayout) -> Traffic {
        let (hosts, perHost) = (Double(layout.hosts), Double(layout.perHost))
        guard layout.hosts > 1 else { return Traffic() }
        switch self {
        case .chain:
            // The last host of the chain receives nothing.
            return Traffic(ownerIn: bytes, otherIn: bytes * (hosts - 2) / (hosts - 1), otherOut: bytes)
        case .binomial:
            // Of the tree's levels, those that span less than a host cross its border for half of their messages.
            let crossing = 1 + perHost.logarithm2 / 2
            let root = Double(layout.treeDepth)
            let all = crossing * (hosts - 1)
            return Traffic(
                ownerIn: bytes * root, otherIn: bytes * max(0, all - root) / (hosts - 1),
                otherOut: bytes * crossing)
        case .direct:
            return Traffic(ownerIn: bytes * perHost * (hosts - 1), otherOut: bytes * perHost)
        case .ring:
            let each = 2 * bytes * (1 - 1 / Double(layout.ranks))
            return Traffic(ownerIn: each, ownerOut: each, otherIn: each, otherOut: each)
        }
    }

    /// Seconds by which the last byte comes later than the links alone would let it.
    public func latency(bytes: Double, _ network: NetworkModel, _ layout: RankLayout) -> Double {
        switch self {
        case .chain: Double(layout.hosts - 1) * network.latencySeconds
        case .binomial: Double(layout.treeDepth) * network.start(bytes)
        case .direct: layout.hosts > 1 ? network.start(bytes) : 0
        case .ring:
            2 * Double(layout.hosts - 1) * network.start(bytes / Double(layout.ranks))
        }
    }

    /// Bytes that an element takes on its way.
    var elementBytes: Double { self == .direct ? 2 : 4 }
}
