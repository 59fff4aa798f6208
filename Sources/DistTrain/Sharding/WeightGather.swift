import MPIShim
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
final class WeightGather {
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

    private let communicator: MPICommunicator
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
    private var isUnderWay = false
    /// Kept for `finish`, because the hooks of a pass cannot throw.
    private var failure: CommunicationError?
    private var seconds = (wait: 0.0, busy: 0.0)
    /// Told when a pass begins and ends to wait.
    var waiting: ((Bool) -> Void)?

    /// Messages on their way to each other rank at once. MPI lets all that were started share a link, and the first would
    /// arrive with the last.
    private static let window = 4
    /// Tags of weights; those of gradients are lower.
    private static let firstTag = 16_384

    /// nil where all ranks are on one machine: the processors that would compute meanwhile also move the data there.
    ///
    /// - Parameter hosts: where the ranks are taken to be; nil: where they are.
    init?(
        _ store: ParameterStore, _ slices: FlatSlices, _ communicator: any Communicator, hosts: HostMap?
    ) {
        guard let communicator = communicator as? MPICommunicator else { return nil }
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
        if isUnderWay { communicator.noteAbandonedRequest() }
        receives.deallocate()
        sends.deallocate()
    }

    /// For each instruction of a tape, how many pieces must have arrived before it.
    ///
    /// - Parameter uses: as `ForwardOrder` tells them.
    func needs(_ uses: [[Int]]) -> [Int] {
        uses.map { ranges in
            let last = ranges.max() ?? -1
            return arriving.prefix { ($0.range ?? -1) <= last }.count
        }
    }

    /// Starts to send this rank's pieces, which stay as they are until `finish` has returned, and to receive the others.
    func start() {
        precondition(!isUnderWay, "weights are under way already")
        guard failure == nil else { return }
        isUnderWay = true
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
    func progress() {
        guard isUnderWay else { return }
        let begin = monotonicSeconds()
        advance()
        seconds.busy += monotonicSeconds() - begin
    }

    /// Returns when the first `count` pieces have arrived.
    func wait(for count: Int) {
        guard isUnderWay, arrived < count, failure == nil else { return }
        waiting?(true)
        wait { self.arrived >= count }
        waiting?(false)
    }

    /// Returns when all weights are there, and this rank's are with the others. Every rank calls it before it waits for
    /// anything else that other ranks do only after their pass: not all messages are started at once.
    func finish() throws(CommunicationError) {
        if isUnderWay { wait { !self.isUnderWay } }
        if let failure { throw failure }
    }

    /// Tries for some seconds to end what is under way, when the run ends by an error: MPI cannot be left otherwise.
    func settle(within seconds: Double) {
        let deadline = monotonicSeconds() + seconds
        while isUnderWay, failure == nil, monotonicSeconds() < deadline { advance() }
    }

    /// Seconds since the last call that the rank waited, and all of those in MPI.
    func takeSeconds() -> (wait: Double, busy: Double) {
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
        if failure == nil, arrived == arriving.count, sent == messages.count { isUnderWay = false }
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

/// Which rank lies on which host, and by which way a piece of weights comes from its owner to every rank.
public struct HostMap: Equatable, Sendable {
    /// The ranks of each host.
    public let hosts: [[Int]]
    private let hostOfRank: [Int]

    /// - Parameter leaders: of each rank, the lowest rank on its host.
    public init(leaders: [Int]) {
        let ranks = Dictionary(grouping: leaders.indices) { leaders[$0] }
        hosts = ranks.keys.sorted().map { ranks[$0]! }
        var hostOfRank = Array(repeating: 0, count: leaders.count)
        for (host, members) in hosts.enumerated() { for rank in members { hostOfRank[rank] = host } }
        self.hostOfRank = hostOfRank
    }

    /// The rank of a host that receives from `owner` for all of it: another for each of an owner's host's ranks.
    private func gate(_ host: Int, for owner: Int) -> Int {
        if host == hostOfRank[owner] { return owner }
        let place = hosts[hostOfRank[owner]].firstIndex(of: owner)!
        return hosts[host][place % hosts[host].count]
    }

    /// Where `rank` receives what `owner` owns from; nil: it is the owner.
    public func source(of owner: Int, for rank: Int) -> Int? {
        let gate = gate(hostOfRank[rank], for: owner)
        return rank == owner ? nil : rank == gate ? owner : gate
    }

    /// Whom `rank` sends to what `owner` owns: other hosts first.
    public func targets(of owner: Int, from rank: Int) -> [Int] {
        let host = hostOfRank[rank]
        guard rank == gate(host, for: owner) else { return [] }
        let neighbours = hosts[host].filter { $0 != rank }
        guard rank == owner else { return neighbours }
        // Owners begin with different hosts, so that not all send to one at a time.
        let others = (1..<hosts.count).map { (host + $0) % hosts.count }
        return others.map { gate($0, for: owner) } + neighbours
    }
}

/// The store's elements in the order in which the forward pass reads them.
public enum ForwardOrder {
    /// Elements of a range at the most: Open MPI has three parts of 1 MiB of a message on their way at once, and so
    /// takes messages that are no longer one after the other.
    private static let longest = 1 << 20

    /// Ranges that cover the store, first declared parameters first: each a 64th of it or less.
    public static func ranges(of store: ParameterStore) -> [Range<Int>] {
        let elements = min(longest, max(1, store.count / 64))
        return GradientBuckets.ranges(of: store, elements: elements).reversed().flatMap { range in
            stride(from: range.lowerBound, to: range.upperBound, by: longest).map {
                $0..<min($0 + longest, range.upperBound)
            }
        }
    }

    /// For every instruction of the tape, the ranges that it is the first to read values of.
    public static func uses(of ranges: [Range<Int>], store: ParameterStore, tape: Tape) -> [[Int]] {
        var first = ranges.map { _ in Int.max }
        for parameter in store.parameters {
            guard let instruction = tape.firstUse(of: parameter) else { continue }
            for (index, range) in ranges.enumerated() where range.overlaps(parameter.range) {
                first[index] = min(first[index], instruction)
            }
        }
        var uses = Array(repeating: [Int](), count: tape.instructionCount)
        for (index, instruction) in first.enumerated() where instruction < uses.count {
            uses[instruction].append(index)
        }
        return uses
    }
}

extension UnsafeMutableRawBufferPointer {
    fileprivate func part(_ range: Range<Int>) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(rebasing: self[range])
    }
}
