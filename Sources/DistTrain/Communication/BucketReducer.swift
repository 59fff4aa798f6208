import Foundation
import MPIShim

/// Sums gradients over the ranks while the backward pass is still computing the rest of them.
///
/// The flat gradient buffer is cut into buckets, listed in the order in which backward completes them. As
/// soon as a bucket is complete its reduction starts, without blocking. MPI moves data only while it is
/// being called, so backward calls `progress()` between its operations. What is not hidden behind
/// computing shows as `waitSeconds`.
///
/// On one machine there is nothing to hide behind: the processors themselves move the data, and Open MPI's
/// blocking all-reduce does so in half the time of the other. There the buckets are summed in `finish`.
///
///     // each step
///     backward { bucket in reducer.bucketReady(bucket) } between: { reducer.progress() }
///     let (wait, busy) = try reducer.finish()
///
/// The result is the sum; whoever clips the gradients multiplies by 1 / size in the same pass. Reductions
/// start in bucket order on every rank, whatever the order of the calls, because MPI matches collectives
/// by the order in which they start. With one rank nothing happens. A step allocates nothing.
///
/// Reference: Li et al., "PyTorch Distributed: Experiences on Accelerating Data Parallel Training",
/// VLDB 2020, section 3.2.3.
public final class BucketReducer {
    private let communicator: MPICommunicator?
    private let gradients: UnsafeMutablePointer<Float>
    private let buckets: [Range<Int>]
    private let overlaps: Bool
    private let requests: UnsafeMutablePointer<mpishim_request>
    private var isReady: [Bool]
    /// Buckets `0..<started` are under way or complete.
    private var started = 0
    private var busySeconds = 0.0
    /// Kept for `finish`, because the hooks of a backward pass cannot throw.
    private var failure: CommunicationError?

    /// - Parameters:
    ///   - gradients: the flat buffer; it outlives the reducer and does not move.
    ///   - buckets: ranges of element offsets that do not overlap, each of fewer than 2^31 elements, in
    ///     the order in which they become ready, the same on every rank.
    ///   - overlaps: reduce while backward computes; nil: where the ranks are on several machines.
    public init(
        communicator: any Communicator, gradients: UnsafeMutablePointer<Float>, buckets: [Range<Int>],
        overlaps: Bool? = nil
    ) {
        self.communicator = communicator.size > 1 ? communicator as? MPICommunicator : nil
        precondition(communicator.size == 1 || self.communicator != nil, "an unknown kind of communicator")
        self.gradients = gradients
        self.buckets = buckets
        self.overlaps = overlaps ?? (communicator.localSize < communicator.size)
        isReady = Array(repeating: false, count: buckets.count)
        requests = .allocate(capacity: max(buckets.count, 1))
        requests.initialize(repeating: mpishim_null_request(), count: buckets.count)
    }

    deinit {
        var done: Int32 = 1
        if communicator != nil, started > 0 {
            let error = mpishim_test_all(requests, started, &done)
            if error != 0 || done == 0 { communicator?.noteAbandonedRequest() }
        }
        requests.deallocate()
    }

    public var bucketCount: Int { buckets.count }

    /// Declares a bucket's gradients final. They may not be touched again before `finish` has returned.
    public func bucketReady(_ index: Int) {
        precondition(!isReady[index], "bucket \(index) became ready twice in one step")
        isReady[index] = true
        guard communicator != nil, overlaps else { return }
        let begin = monotonicSeconds()
        startReadyBuckets()
        busySeconds += monotonicSeconds() - begin
    }

    /// Drives the transfers on. Cheap when there is nothing to do; call it often during backward.
    public func progress() {
        guard communicator != nil, started > 0, failure == nil else { return }
        let begin = monotonicSeconds()
        testAll()
        busySeconds += monotonicSeconds() - begin
    }

    /// Starts what has not been declared ready (parameters that got no gradient), waits for everything,
    /// and makes ready for the next step.
    ///
    /// - Returns: the seconds spent waiting here, which computing did not hide, and all seconds of the
    ///   step spent inside MPI, those included.
    @discardableResult
    public func finish() throws(CommunicationError) -> (waitSeconds: Double, busySeconds: Double) {
        defer {
            for index in isReady.indices { isReady[index] = false }
            busySeconds = 0
        }
        guard let communicator else { return (0, 0) }
        let begin = monotonicSeconds()
        guard overlaps else {
            for range in buckets {
                let bucket = UnsafeMutableBufferPointer(
                    start: gradients + range.lowerBound, count: range.count)
                try communicator.allReduceSum(bucket)
            }
            let seconds = monotonicSeconds() - begin
            return (seconds, seconds)
        }
        for index in isReady.indices { isReady[index] = true }
        startReadyBuckets()
        for index in 0..<started where failure == nil {
            note(mpishim_wait(requests + index), "waiting for gradient bucket", index)
        }
        if let failure { throw failure }
        started = 0
        let waited = monotonicSeconds() - begin
        return (waited, busySeconds + waited)
    }

    private func startReadyBuckets() {
        while started < buckets.count, isReady[started], failure == nil {
            let range = buckets[started]
            note(
                mpishim_start_allreduce_sum(gradients + range.lowerBound, range.count, requests + started),
                "starting gradient bucket", started)
            started += 1
        }
    }

    private func testAll() {
        var done: Int32 = 0
        note(mpishim_test_all(requests, started, &done), "driving gradient buckets up to", started)
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

/// Seconds on a clock that never goes back.
func monotonicSeconds() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
}
