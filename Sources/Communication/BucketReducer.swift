import CKernels
import Foundation
import MPIShim
import Support
import TensorCore

/// Sums gradients over the ranks: each rank's slice there, or everything everywhere.
///
/// On several machines this is done while the backward pass is still computing the rest. The flat gradient buffer is
/// cut into buckets, listed in the order in which backward completes them. As soon as a bucket is complete its
/// reduction starts, without blocking. MPI moves data only while it is being called, so backward calls `progress()`
/// between its operations. What is not hidden behind computing shows as `waitSeconds`.
///
/// On one machine there is nothing to hide behind, since the processors themselves move the data. There `finish` has
/// each rank fetch the others' parts of its slice and add them up, in half the time of Open MPI's all-reduce.
///
///     // each step
///     backward { bucket in reducer.bucketReady(bucket) } between: { reducer.progress() }
///     let (wait, busy) = try reducer.finish()
///
/// With `reduceDType` bf16 half of the bytes travel, on any number of machines: see `HalfPrecisionExchange`.
///
/// Reductions start in bucket order on every rank, whatever the order of the calls, because MPI matches collectives by
/// the order in which they start. With one rank nothing happens. A step allocates nothing.
///
/// Reference: Li et al., "PyTorch Distributed: Experiences on Accelerating Data Parallel Training",
/// VLDB 2020, section 3.2.3.
package final class BucketReducer {
    /// A run of gradients that is reduced by one call; to one rank, or to all.
    private struct Piece {
        let range: Range<Int>
        let root: Int?
    }

    private let communicator: MPICommunicator?
    private let gradients: UnsafeMutablePointer<Float>
    private let slices: FlatSlices
    private let sharding: Sharding
    private let overlaps: Bool
    /// Of each bucket, in order.
    private let pieces: [[Piece]]
    private let requests: UnsafeMutablePointer<mpishim_request>
    private let pieceCount: Int
    private let received: UnsafeMutablePointer<Float>
    /// Where gradients travel in bf16.
    private let halves: HalfPrecisionExchange?
    private var isReady: [Bool]
    /// Buckets `0..<startedBuckets` are under way or complete, with so many requests.
    private var startedBuckets = 0
    private var started = 0
    private var busySeconds = 0.0
    /// Kept for `finish`, because the hooks of a backward pass cannot throw.
    private var failure: CommunicationError?

    /// Elements that go from rank to rank at once on one machine: 1 MiB, which stays in cache while it is added.
    private static let exchanged = 1 << 18

    /// - Parameters:
    ///   - gradients: the flat buffer, `slices.count` elements; it outlives the reducer and does not move.
    ///   - buckets: ranges that cover the buffer without overlap, each of fewer than 2^31 elements, in the order in
    ///     which they become ready, the same on every rank.
    ///   - sharding: with `optimizer` a rank's slice alone is summed; the rest is undefined afterwards.
    ///   - reduceDType: what gradients are on their way; sums are fp32 always.
    ///   - overlaps: reduce while backward computes; nil: where the ranks are on several machines, or with bf16.
    package init(
        communicator: any Communicator, gradients: UnsafeMutablePointer<Float>, buckets: [Range<Int>],
        slices: FlatSlices, sharding: Sharding, reduceDType: DType = .float32, overlaps: Bool? = nil
    ) {
        self.communicator = communicator.size > 1 ? communicator as? MPICommunicator : nil
        precondition(communicator.size == 1 || self.communicator != nil, "an unknown kind of communicator")
        precondition(
            buckets.reduce(0) { $0 + $1.count } == slices.count,
            "buckets do not cover \(slices.count) elements")
        self.gradients = gradients
        self.slices = slices
        self.sharding = sharding
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

    package var bucketCount: Int { pieces.count }

    /// Declares a bucket's gradients final. They may not be touched again before `finish` has returned.
    package func bucketReady(_ index: Int) {
        precondition(!isReady[index], "bucket \(index) became ready twice in one step")
        isReady[index] = true
        guard communicator != nil, overlaps else { return }
        let begin = monotonicSeconds()
        startReadyBuckets()
        busySeconds += monotonicSeconds() - begin
    }

    /// Drives the transfers on. Cheap when there is nothing to do; call it often during backward.
    package func progress() {
        guard communicator != nil, underWay > 0, failure == nil else { return }
        let begin = monotonicSeconds()
        var done: Int32 = 0
        note(mpishim_test_all(open, underWay, &done), "driving gradient buckets up to", startedBuckets)
        busySeconds += monotonicSeconds() - begin
    }

    /// Starts what has not been declared ready (parameters that got no gradient), waits for everything,
    /// and makes ready for the next step.
    ///
    /// - Returns: the seconds spent waiting here, which computing did not hide, and all seconds of the
    ///   step spent inside MPI, those included.
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

    // MARK: While backward computes

    /// The requests of this step, and how many there are so far.
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
        guard error != 0 else { return }
        do throws(CommunicationError) {
            try checked("\(what) \(index)", error)
        } catch {
            failure = error
        }
    }

    // MARK: On one machine

    /// Own slice ← own + the others', the nearest lower rank's first.
    private func sumOwnSlice(_ communicator: MPICommunicator) throws(CommunicationError) {
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

    private func spreadSums(_ communicator: MPICommunicator) throws(CommunicationError) {
        try communicator.allGather(
            inPlace: UnsafeMutableRawBufferPointer(start: gradients, count: 4 * slices.count),
            parts: slices.all.map { 4 * $0.lowerBound..<4 * $0.upperBound }, elementSize: 4)
    }
}
