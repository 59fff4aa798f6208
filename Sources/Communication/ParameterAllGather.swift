import MPIShim
import Support
import TensorCore

/// All-gather of updated weights that overlaps with the next forward pass.
///
/// The weights that kernels read are divided into pieces, in the order in which the forward pass reads them. The owner
/// of a piece sends it to the ranks on its own host and to one rank on every other host, which forwards it to the
/// other ranks there, so that each link carries it only once. The pass waits for a piece immediately before the first
/// instruction that reads it. Few weights are read while activations are large, so most of the transfer overlaps with
/// computation. MPI makes progress only inside MPI calls, so the pass calls `progress()` between its instructions. The
/// time that is not overlapped is reported as `waitSeconds`.
///
/// Pieces arrive in order, each with its own tag, and no rank modifies its own values until `finish` has returned. A
/// step allocates no memory.
///
/// Reference: Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", SC 2020,
/// section 7: the parameter all-gather, spread over the forward pass.
package final class ParameterAllGather {
    /// A contiguous range of bytes owned by one rank.
    private struct Piece {
        let bytes: UnsafeMutableRawBufferPointer
        /// The range of `ForwardOrder` that contains it; nil: the vectors of the whole model.
        let range: Int?
        let tag: Int32
        /// The rank that sends it; nil: this rank owns it.
        let source: Int32?
        let targets: [Int32]
    }

    private let communicator: Communicator
    private let own: [Piece]
    private let arriving: [Piece]
    private let receives: UnsafeMutablePointer<mpishim_request>
    private let sends: UnsafeMutablePointer<mpishim_request>
    /// Outgoing messages in order, and the numbers of them that have been started and completed.
    private var messages: [(piece: Piece, target: Int32)] = []
    private var started = 0
    private var sent = 0
    /// Number of pieces that have arrived.
    private var arrived = 0
    /// Maximum number of sends in flight.
    private let most: Int
    private var isInFlight = false
    /// Thrown by `finish`, because the hooks of a pass cannot throw.
    private var failure: CommunicationError?
    private var seconds = (wait: 0.0, busy: 0.0)

    /// Sends in flight per destination rank. MPI shares a link among all started messages, so with more of them the
    /// first would arrive together with the last.
    private static let window = 4
    /// Tags of weights; those of gradients are lower.
    private static let firstTag = 16_384

    /// Returns nil if all ranks are on one host, where overlap has no benefit: the same processors compute and move the
    /// data.
    ///
    /// - Parameter hosts: a simulated placement of the ranks; nil: the actual one.
    package init?(
        _ store: ParameterStore, _ slices: ShardLayout, _ communicator: Communicator, hosts: HostMap?
    ) {
        guard communicator.size > 1 else { return nil }
        let hosts = hosts ?? HostMap(leaders: communicator.hostLeaders)
        guard hosts.hosts.count > 1 else { return nil }
        self.communicator = communicator
        let rank = communicator.rank
        var pieces: [Piece] = []
        func add(_ bytes: UnsafeMutableRawBufferPointer, _ range: Int?, owner: Int) {
            guard !bytes.isEmpty else { return }
            pieces.append(
                Piece(
                    bytes: bytes, range: range, tag: Int32(Self.firstTag + pieces.count),
                    source: hosts.source(of: owner, for: rank).map(Int32.init),
                    targets: hosts.targets(of: owner, from: rank).map(Int32.init)))
        }
        // Send all vectors first: they are small and used in every layer.
        let memories = store.kernelMemory(dividedInto: slices.all)
        for (memory, parts, _) in memories.dropFirst() {
            for (owner, part) in parts.enumerated() { add(memory.part(part), nil, owner: owner) }
        }
        let (memory, _, elementSize) = memories[0]
        for (index, range) in ForwardOrder.ranges(of: store).enumerated() {
            for (owner, slice) in slices.all.enumerated() {
                let part = range.clamped(to: slice)
                add(
                    memory.part(elementSize * part.lowerBound..<elementSize * part.upperBound), index,
                    owner: owner)
            }
        }
        own = pieces.filter { $0.source == nil }
        arriving = pieces.filter { $0.source != nil }
        let count = pieces.reduce(0) { $0 + $1.targets.count }
        messages.reserveCapacity(count)
        most = Self.window * max(1, hosts.targets(of: rank, from: rank).count)
        receives = .allocate(capacity: max(1, arriving.count))
        receives.initialize(repeating: mpishim_null_request(), count: arriving.count)
        sends = .allocate(capacity: max(1, count))
        sends.initialize(repeating: mpishim_null_request(), count: count)
    }

    deinit {
        if isInFlight { communicator.noteAbandonedRequest() }
        receives.deallocate()
        sends.deallocate()
    }

    /// For each instruction of a tape, how many pieces must have arrived before it.
    ///
    /// - Parameter uses: as `ForwardOrder` computes them.
    package func needs(_ uses: [[Int]]) -> [Int] {
        uses.map { ranges in
            let last = ranges.max() ?? -1
            return arriving.prefix { ($0.range ?? -1) <= last }.count
        }
    }

    /// Starts to send this rank's pieces, which must not change until `finish` has returned, and to receive the others.
    package func start() {
        precondition(!isInFlight, "an all-gather is in flight already")
        guard failure == nil else { return }
        isInFlight = true
        (arrived, sent, started) = (0, 0, 0)
        messages.removeAll(keepingCapacity: true)
        for (index, piece) in arriving.enumerated() {
            note(
                mpishim_start_receive(
                    piece.bytes.baseAddress, piece.bytes.count, piece.source!, piece.tag, receives + index),
                "starting to receive weights, part", index)
        }
        for piece in own { queue(piece) }
        startSends()
    }

    /// Makes progress on the transfers. Cheap if nothing is in flight; call it often.
    package func progress() {
        guard isInFlight else { return }
        let begin = monotonicSeconds()
        advance()
        seconds.busy += monotonicSeconds() - begin
    }

    /// Whether any of the first `count` pieces has not arrived yet.
    package func lacks(_ count: Int) -> Bool { isInFlight && arrived < count && failure == nil }

    /// Returns when the first `count` pieces have arrived.
    package func wait(for count: Int) {
        if lacks(count) { wait { self.arrived >= count } }
    }

    /// Returns when all weights have arrived and this rank's messages have been delivered. Call it before waiting for
    /// anything that other ranks do after their forward pass, because some messages may not have been started yet.
    package func finish() throws(CommunicationError) {
        if isInFlight { wait { !self.isInFlight } }
        if let failure { throw failure }
    }

    /// Tries for some seconds to complete the messages in flight when the run ends with an error; otherwise MPI cannot
    /// be finalized.
    package func drain(within seconds: Double) {
        let deadline = monotonicSeconds() + seconds
        while isInFlight, failure == nil, monotonicSeconds() < deadline { advance() }
    }

    /// Seconds spent waiting since the last call, and all seconds spent inside MPI.
    package func takeSeconds() -> (wait: Double, busy: Double) {
        defer { seconds = (0, 0) }
        return seconds
    }

    // MARK: Messages

    private func wait(until isDone: () -> Bool) {
        let begin = monotonicSeconds()
        // Make progress on all messages: another rank may wait for a piece that this rank must forward.
        while failure == nil, !isDone() { advance() }
        let waited = monotonicSeconds() - begin
        seconds = (seconds.wait + waited, seconds.busy + waited)
    }

    private func advance() {
        guard failure == nil else { return }
        while arrived < arriving.count, isComplete(receives + arrived, "receiving weights, part", arrived) {
            queue(arriving[arrived])
            arrived += 1
        }
        while sent < started, isComplete(sends + sent, "sending weights, message", sent) { sent += 1 }
        startSends()
        if failure == nil, arrived == arriving.count, sent == messages.count { isInFlight = false }
    }

    private func queue(_ piece: Piece) {
        for target in piece.targets { messages.append((piece, target)) }
    }

    private func startSends() {
        while started < min(messages.count, sent + most), failure == nil {
            let (piece, target) = messages[started]
            note(
                mpishim_start_send(
                    piece.bytes.baseAddress, piece.bytes.count, target, piece.tag, sends + started),
                "starting to send weights, message", started)
            started += 1
        }
    }

    private func isComplete(
        _ request: UnsafeMutablePointer<mpishim_request>, _ what: StaticString, _ index: Int
    ) -> Bool {
        var done: Int32 = 0
        note(mpishim_test_all(request, 1, &done), what, index)
        return done != 0 && failure == nil
    }

    private func note(_ error: Int32, _ what: StaticString, _ index: Int) {
        if error != 0 { failure = CommunicationError("\(what) \(index)", error) }
    }
}

extension UnsafeMutableRawBufferPointer {
    fileprivate func part(_ range: Range<Int>) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(rebasing: self[range])
    }
}

/// The mapping of ranks to hosts, and the route of weights from their owner to all ranks.
package struct HostMap: Equatable, Sendable {
    /// The ranks of each host.
    package let hosts: [[Int]]
    private let hostOfRank: [Int]

    /// - Parameter leaders: for each rank, the lowest rank on its host.
    package init(leaders: [Int]) {
        let ranks = Dictionary(grouping: leaders.indices) { leaders[$0] }
        hosts = ranks.keys.sorted().map { ranks[$0]! }
        var hostOfRank = Array(repeating: 0, count: leaders.count)
        for (host, members) in hosts.enumerated() { for rank in members { hostOfRank[rank] = host } }
        self.hostOfRank = hostOfRank
    }

    /// The rank of a host that receives from `owner` on behalf of the host. Owners on the same host use
    /// different ranks if possible.
    private func gate(_ host: Int, for owner: Int) -> Int {
        if host == hostOfRank[owner] { return owner }
        let place = hosts[hostOfRank[owner]].firstIndex(of: owner)!
        return hosts[host][place % hosts[host].count]
    }

    /// The rank from which `rank` receives the weights of `owner`; nil if it is the owner.
    package func source(of owner: Int, for rank: Int) -> Int? {
        let gate = gate(hostOfRank[rank], for: owner)
        return rank == owner ? nil : rank == gate ? owner : gate
    }

    /// The ranks to which `rank` sends the weights of `owner`, other hosts first.
    package func targets(of owner: Int, from rank: Int) -> [Int] {
        let host = hostOfRank[rank]
        guard rank == gate(host, for: owner) else { return [] }
        let neighbours = hosts[host].filter { $0 != rank }
        guard rank == owner else { return neighbours }
        // Each owner starts with a different host, so that they do not all send to the same one.
        let others = (1..<hosts.count).map { (host + $0) % hosts.count }
        return others.map { gate($0, for: owner) } + neighbours
    }
}
