import MPIShim

/// An all-reduce (sum) in flight. It must be waited for exactly once.
///
///     let pending = try communicator.startAllReduceSum(bucket)
///     computeSomethingElse()
///     try pending.wait()      // only now may `bucket` be accessed
///
/// Dropping it without waiting, as happens when an error unwinds the stack, does not block: the communicator
/// records it and later aborts the job, because MPI cannot be finalized with an open request.
package struct PendingReduction: ~Copyable {
    private var request: mpishim_request
    /// nil for a single process, whose reductions complete immediately.
    private var communicator: MPICommunicator?

    init() {
        request = 0
        communicator = nil
    }

    init(request: mpishim_request, communicator: MPICommunicator) {
        self.request = request
        self.communicator = communicator
    }

    /// Whether the sum is complete. Each call also makes progress on the transfer.
    package borrowing func test() -> Bool {
        guard communicator != nil else { return true }
        var done: Int32 = 0
        // `wait()` reports an error again and throws it.
        return mpishim_peek(request, &done) != 0 || done != 0
    }

    /// Waits until the buffer contains the sum.
    package consuming func wait() throws(CommunicationError) {
        guard communicator != nil else { return }
        communicator = nil  // Waited for, so deinit has nothing to report.
        try checked("waiting for a non-blocking all-reduce", mpishim_wait(&request))
    }

    deinit {
        communicator?.noteAbandonedRequest()
    }
}
