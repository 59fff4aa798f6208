import MPIShim

/// A sum over the ranks that is under way. It has to be waited for exactly once.
///
///     let pending = try communicator.startAllReduceSum(bucket)
///     computeSomethingElse()
///     try pending.wait()      // only now may `bucket` be touched
///
/// Dropping it unwaited, as happens when an error unwinds the stack, does not block: the communicator
/// remembers it and ends the job by abort, since MPI cannot be finalized under an open request.
package struct PendingReduction: ~Copyable {
    private var request: mpishim_request
    /// Nil for a single process, whose reductions are complete when they start.
    private var communicator: MPICommunicator?

    init() {
        request = 0
        communicator = nil
    }

    init(request: mpishim_request, communicator: MPICommunicator) {
        self.request = request
        self.communicator = communicator
    }

    /// Whether the sum is complete. Each call also drives the transfer on.
    package borrowing func test() -> Bool {
        guard communicator != nil else { return true }
        var done: Int32 = 0
        // An error shows again, and is thrown, in wait().
        return mpishim_peek(request, &done) != 0 || done != 0
    }

    /// Returns when the sum stands in the buffer.
    package consuming func wait() throws(CommunicationError) {
        guard communicator != nil else { return }
        communicator = nil  // Waited for: deinit has nothing to report.
        try checked("waiting for a non-blocking all-reduce", mpishim_wait(&request))
    }

    deinit {
        communicator?.noteAbandonedRequest()
    }
}
