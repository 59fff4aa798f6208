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
package final class WeightGather {
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
    package var waiting: ((Bool) -> Void)?

    /// Messages on their way to each other rank at once. MPI lets all that were started share a link, and the first would
    /// arrive with the last.
    private static let window = 4
    /// Tags of weights; those of gradients are lower.
    private static let firstTag = 16_384

    /// nil where all ranks are on one machine: the processors that would compute meanwhile also move the data there.
    ///
    /// - Parameter hosts: where the ranks are taken to be; nil: where they are.
    package init?(
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
    package func needs(_ uses: [[Int]]) -> [Int] {
        uses.map { ranges in
            let last = ranges.max() ?? -1
            return arriving.prefix { ($0.range ?? -1) <= last }.count
        }
    }

    /// Starts to send this rank's pieces, which stay as they are until `finish` has returned, and to receive the others.
    package func start() {
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
    package func progress() {
        guard isUnderWay else { return }
        let begin = monotonicSeconds()
        advance()
        seconds.busy += monotonicSeconds() - begin
    }

    /// Returns when the first `count` pieces have arrived.
    package func wait(for count: Int) {
        guard isUnderWay, arrived < count, failure == nil else { return }
        waiting?(true)
        wait { self.arrived >= count }
        waiting?(false)
    }

    /// Returns when all weights are there, and this rank's are with the others. Every rank calls it before it waits for
    /// anything else that other ranks do only after their pass: not all messages are started at once.
    package func finish() throws(CommunicationError) {
        if isUnderWay { wait { !self.isUnderWay } }
        if let failure { throw failure }
    }

    /// Tries for some seconds to end what is under way, when the run ends by an error: MPI cannot be left otherwise.
    package func settle(within seconds: Double) {
        let deadline = monotonicSeconds() + seconds
        while isUnderWay, failure == nil, monotonicSeconds() < deadline { advance() }
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

extension UnsafeMutableRawBufferPointer {
    fileprivate func part(_ range: Range<Int>) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(rebasing: self[range])
    }
}
