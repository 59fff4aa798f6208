import CKernels
import Foundation
import MPIShim
import Support
import TensorCore

/// Sums gradients over the ranks: a reduce-scatter to each rank's slice, or an all-reduce.
///
/// On several hosts the reduction overlaps with the backward pass. The flat gradient buffer is divided into
/// buckets, ordered by their completion in the backward pass. When a bucket is complete, its reduction starts
/// without blocking. MPI only makes progress inside MPI calls, so the backward pass calls `progress()`
/// between its operations. The time that is not overlapped is reported as `waitSeconds`.
///
/// On one host overlap has no benefit, because the transfer uses the same processors as the computation.
/// There, in `finish`, each rank fetches the other ranks' parts of its slice and adds them, in half the time
/// of Open MPI's all-reduce.
///
///     // each step
///     backward { bucket in reducer.bucketReady(bucket) } between: { reducer.progress() }
///     let (wait, busy) = try reducer.finish()
///
/// With `reduceDType` bf16, half the bytes are transferred, on any number of hosts; see
/// `HalfPrecisionExchange`.
///
/// All ranks start reductions in bucket order, regardless of the order of the calls, because MPI matches
/// collectives by the order in which they start. With one rank all calls do nothing. A step allocates no
/// memory.
///
/// Reference: Li et al., "PyTorch Distributed: Experiences on Accelerating Data Parallel Training", VLDB
/// 2020, section 3.2.3.
package final class BucketReducer {
    /// A range of gradients reduced by one call, to the rank `root` or, if nil, to all ranks.
    private struct Piece {
        let range: Range<Int>
        let root: Int?
    }

    /// nil for a single rank.
    private let communicator: Communicator?
    private let gradients: UnsafeMutablePointer<Float>
    private let slices: ShardLayout
    private let sharding: Sharding
    private let overlaps: Bool
    /// The pieces of each bucket, in order.
    private let pieces: [[Piece]]
    private let requests: UnsafeMutablePointer<mpishim_request>
    private let pieceCount: Int
    private let received: UnsafeMutablePointer<Float>
    /// Set if gradients are transferred as bf16.
    private let halves: HalfPrecisionExchange?
    private var isReady: [Bool]
    /// Buckets `0..<startedBuckets` are in flight or complete; `started` is their number of requests.
    private var startedBuckets = 0
    private var started = 0
    private var busySeconds = 0.0
    /// Thrown by `finish`, because the hooks of a backward pass cannot throw.
    private var failure: CommunicationError?

    /// Elements per exchange between two ranks on one host: 1 MiB, which stays in cache until it is added.
    private static let exchanged = 1 << 18

    /// - Parameters:
    ///   - gradients: the flat buffer, `slices.count` elements; it must outlive the reducer and not move.
    ///   - buckets: ranges that cover the buffer without overlap, each of fewer than 2^31 elements, in the
    ///     order in which they become ready; identical on all ranks.
    ///   - sharding: with `optimizer` only a rank's own slice is summed; the rest of the buffer is undefined
    ///     afterwards.
    ///   - reduceDType: the type of gradients in transfer; sums are always fp32.
    ///   - overlaps: whether to reduce during the backward pass; nil to do so if the ranks are on several
    ///     hosts, or with bf16.
    package init(
        communicator: Communicator, gradients: UnsafeMutablePointer<Float>, buckets: [Range<Int>],
        slices: ShardLayout, sharding: Sharding, reduceDType: DType = .float32, overlaps: Bool? = nil
    ) {
        self.communicator = communicator.size > 1 ? communicator : nil
        precondition(
            buckets.reduce(0) { $0 + $1.count } == slices.count,
            "buckets do not cover \(slices.count) elements")
        (self.gradients, self.slices, self.sharding) = (gradients, slices, sharding)
        let isHalf = reduceDType == .bfloat16
        self.overlaps = isHalf || (overlaps ?? (communicator.localSize < communicator.size))
        pieces = buckets.map { bucket in
            guard sharding == .optimizer || isHalf else { return [Piece(range: bucket, root: nil)] }
            return slices.all.enumerated().compactMap { rank, slice in
                let range = bucket.clamped(to: slice)
                return range.isEmpty ? nil : Piece(range: range, root: rank)
            }
        }
        isReady = Array(repeating: false, count: buckets.count)
        pieceCount = pieces.reduce(0) { $0 + $1.count }
        requests = .allocate(capacity: max(pieceCount, 1))
        requests.initialize(repeating: mpishim_null_request(), count: pieceCount)
        received = .allocate(capacity: Self.exchanged)
        let pieceCount = pieceCount
        halves = self.communicator.flatMap {
            isHalf
                ? HalfPrecisionExchange(
                    communicator: $0, gradients: gradients, slices: slices, sharding: sharding,
                    pieces: pieceCount) : nil
        }
    }

    deinit {
        var done: Int32 = 1
        if communicator != nil, underWay > 0 {
            let error = mpishim_test_all(open, underWay, &done)
            if error != 0 || done == 0 { communicator?.noteAbandonedRequest() }
        }
        requests.deallocate()
        received.deallocate()
    }

    /// Call when a bucket's gradients are final. They must not be accessed until `finish` has returned.
    package func bucketReady(_ index: Int) {
        precondition(!isReady[index], "bucket \(index) became ready twice in one step")
        isReady[index] = true
        guard communicator != nil, overlaps else { return }
        let begin = monotonicSeconds()
        startReadyBuckets()
        busySeconds += monotonicSeconds() - begin
    }

    /// Makes progress on the transfers. Cheap if nothing is in flight; call it often during the backward
    /// pass.
    package func progress() {
        guard communicator != nil, underWay > 0, failure == nil else { return }
        let begin = monotonicSeconds()
        var done: Int32 = 0
        note(mpishim_test_all(open, underWay, &done), "progressing gradient buckets up to", startedBuckets)
        busySeconds += monotonicSeconds() - begin
    }

    /// Starts the remaining buckets (of parameters without a gradient), waits for all reductions, and resets
    /// the state for the next step.
    ///
    /// - Returns: the seconds spent waiting here, which did not overlap with computation, and all seconds of
    ///   the step spent inside MPI, which include them.
    @discardableResult
    package func finish() throws(CommunicationError) -> (waitSeconds: Double, busySeconds: Double) {
        defer {
            for index in isReady.indices { isReady[index] = false }
            busySeconds = 0
        }
        guard let communicator else { return (0, 0) }
        let begin = monotonicSeconds()
        if overlaps {
            for index in isReady.indices { isReady[index] = true }
            startReadyBuckets()
            for index in 0..<underWay where failure == nil {
                note(mpishim_wait(open + index), "waiting for gradients, part", index)
            }
            if let failure { throw failure }
            (startedBuckets, started) = (0, 0)
            try halves?.finish()
        } else {
            try sumOwnSlice(communicator)
            if sharding == .none { try spreadSums(communicator) }
        }
        let waited = monotonicSeconds() - begin
        return (waited, busySeconds + waited)
    }

    // MARK: Overlapped reduction

    /// The requests of this step, and their number so far.
    private var open: UnsafeMutablePointer<mpishim_request> { halves?.requests ?? requests }
    private var underWay: Int { halves?.started ?? started }

    private func startReadyBuckets() {
        while startedBuckets < pieces.count, isReady[startedBuckets], failure == nil {
            for piece in pieces[startedBuckets] {
                let (values, request) = (gradients + piece.range.lowerBound, requests + started)
                let error =
                    if let root = piece.root, let halves {
                        halves.start(piece.range, owner: root, tag: started)
                    } else if let root = piece.root {
                        mpishim_start_reduce_sum(values, piece.range.count, Int32(root), request)
                    } else {
                        mpishim_start_allreduce_sum(values, piece.range.count, request)
                    }
                note(error, "starting gradient bucket", startedBuckets)
                started += 1
            }
            startedBuckets += 1
        }
    }

    private func note(_ error: Int32, _ what: StaticString, _ index: Int) {
        if error != 0 { failure = CommunicationError("\(what) \(index)", error) }
    }

    // MARK: On one host

    /// Own slice ← own + the others', the nearest lower rank's first.
    private func sumOwnSlice(_ communicator: Communicator) throws(CommunicationError) {
        let (rank, size) = (communicator.rank, communicator.size)
        let own = slices[rank]
        let longest = slices.all.map(\.count).max() ?? 0
        for distance in 1..<size {
            let (destination, source) = ((rank + distance) % size, (rank - distance + size) % size)
            let theirs = slices[destination]
            for start in stride(from: 0, to: longest, by: Self.exchanged) {
                let sent = max(0, min(Self.exchanged, theirs.count - start))
                let count = max(0, min(Self.exchanged, own.count - start))
                try communicator.exchange(
                    sending: UnsafeRawBufferPointer(
                        start: gradients + theirs.lowerBound + start, count: 4 * sent), to: destination,
                    receiving: UnsafeMutableRawBufferPointer(start: received, count: 4 * count), from: source,
                    tag: distance)
                let sum = gradients + own.lowerBound + start
                ck_add(CK_F32, count, 1, sum, 1, received, sum)
            }
        }
    }

    private func spreadSums(_ communicator: Communicator) throws(CommunicationError) {
        try communicator.allGather(
            inPlace: UnsafeMutableRawBufferPointer(start: gradients, count: 4 * slices.count),
            parts: slices.all.map { 4 * $0.lowerBound..<4 * $0.upperBound }, elementSize: 4)
    }
}
