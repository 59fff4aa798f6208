import MPIShim
import Support
import TensorCore

/// Brings updated weights from the ranks that own them to all others while the next forward pass is already computing.
///
/// What kernels read is cut into pieces, in the order in which the forward pass comes to them. An owner sends a piece
/// to the ranks of its own host and to one rank of every other, which hands it on to its neighbours there, so that a link
/// carries it once. The pass waits for a piece just before the first instruction that reads of it; few weights are read
/// while activations are large, so most of them arrive behind computing. MPI moves data only while it is being called,
/// so the pass calls `progress()` between its instructions. What is not hidden shows as `waitSeconds`.
///
/// Pieces arrive in order, each under its own tag, and every rank's own values lie still until `finish` has returned.
/// A step allocates nothing.
///
/// Reference: Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", SC 2020,
/// section 7: the all-gather of parameters, spread over the forward pass.
package final class ParameterAllGather {
    /// A run of bytes that one rank owns.
    private struct Piece {
        let bytes: UnsafeMutableRawBufferPointer
        /// Which range of `ForwardOrder` it is of; nil: vectors of all the model.
        let range: Int?
        let tag: Int32
        /// Where it comes from; nil: it is this rank's own.
        let source: Int32?
        let targets: [Int32]
    }

    private let communicator: Communicator
    private let own: [Piece]
    private let arriving: [Piece]
    private let receives: UnsafeMutablePointer<mpishim_request>
    private let sends: UnsafeMutablePointer<mpishim_request>
    /// Messages to others in their order, and how many of them were started and are gone.
    private var messages: [(piece: Piece, target: Int32)] = []
    private var started = 0
    private var sent = 0
    /// Pieces that have come.
    private var arrived = 0
    /// Messages that are on their way at once.
    private let most: Int
    private var isInFlight = false
    /// Kept for `finish`, because the hooks of a pass cannot throw.
    private var failure: CommunicationError?
    private var seconds = (wait: 0.0, busy: 0.0)

    /// Messages on their way to each other rank at once. MPI lets all that were started share a link, and the first would
    /// arrive with the last.
    private static let window = 4
    /// Tags of weights; those of gradients are lower.
    private static let firstTag = 16_384

    /// nil where all ranks are on one machine: the processors that would compute meanwhile also move the data there.
    ///
    /// - Parameter hosts: where the ranks are taken to be; nil: where they are.
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
        // Vectors are small, and of every layer.
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

    /// Starts to send this rank's pieces, which stay as they are until `finish` has returned, and to receive the others.
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

    /// Drives the transfers on. Cheap when there is nothing to do; call it often.
    package func progress() {
        guard isInFlight else { return }
        let begin = monotonicSeconds()
        advance()
        seconds.busy += monotonicSeconds() - begin
    }

    /// Whether some of the first `count` pieces have yet to arrive.
    package func lacks(_ count: Int) -> Bool { isInFlight && arrived < count && failure == nil }

    /// Returns when the first `count` pieces have arrived.
    package func wait(for count: Int) {
        if lacks(count) { wait { self.arrived >= count } }
    }

    /// Returns when all weights are there, and this rank's are with the others. Every rank calls it before it waits for
    /// anything else that other ranks do only after their pass: not all messages are started at once.
    package func finish() throws(CommunicationError) {
        if isInFlight { wait { !self.isInFlight } }
        if let failure { throw failure }
    }

    /// Tries for some seconds to complete what is in flight, when the run ends with an error: MPI cannot be finalized
    /// otherwise.
    package func drain(within seconds: Double) {
        let deadline = monotonicSeconds() + seconds
        while isInFlight, failure == nil, monotonicSeconds() < deadline { advance() }
    }

    /// Seconds since the last call that the rank waited, and all of those in MPI.
    package func takeSeconds() -> (wait: Double, busy: Double) {
        defer { seconds = (0, 0) }
        return seconds
    }

    // MARK: Messages

    private func wait(until isDone: () -> Bool) {
        let begin = monotonicSeconds()
        // What a neighbour waits for may have to be handed on by this rank, so it must not wait for one message alone.
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
        guard error != 0 else { return }
        do throws(CommunicationError) {
            try checked("\(what) \(index)", error)
        } catch {
            failure = error
        }
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
