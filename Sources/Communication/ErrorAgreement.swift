import Support

/// Another rank failed in a collective operation. That rank prints its own error.
package struct RemoteFailure: ReportableError {
    /// The lowest rank that failed.
    package let rank: Int
    /// The operation that failed.
    package let what: String
    package let report: FailureReport

    package var message: String { "rank \(rank): \(report.message)" }
    package var exitStatus: Int32 { report.exitStatus }
}

extension Communicator {
    /// Runs a fallible operation on all ranks and ensures that all ranks succeed or throw together.
    ///
    /// If only one rank threw, the others would wait forever in their next collective. Here all ranks run
    /// `body` and then agree on the outcome: if any rank failed, all throw.
    ///
    /// - Parameters:
    ///   - what: the operation, for example "opening the dataset".
    ///   - body: must not communicate, because a rank that fails inside would leave the others' collectives
    ///     unmatched.
    /// - Throws: the rank's own error if its `body` threw, otherwise `RemoteFailure`.
    package func collectively<Value>(_ what: String, _ body: () throws -> Value) throws -> Value {
        guard size > 1 else { return try body() }
        let outcome = Result { try body() }
        var ownReport: FailureReport?
        if case .failure(let error) = outcome { ownReport = FailureReport(error) }

        let failed = try allReduceMin(ownReport == nil ? size : rank)
        guard failed < size else { return try outcome.get() }

        let noted = try broadcast(ownReport ?? FailureReport(message: "", exitStatus: 0), root: failed)
        _ = try outcome.get()
        throw RemoteFailure(rank: failed, what: what, report: noted)
    }

    /// Runs an operation on one rank and broadcasts its result or its error.
    ///
    /// - Throws: the error of `body` on `root`, `RemoteFailure` on the other ranks.
    package func fromRoot<Value: Codable>(
        _ what: String, root: Int = 0, _ body: () throws -> Value
    ) throws -> Value {
        let own: Value? = try collectively(what) { rank == root ? try body() : nil }
        guard let value = try broadcast(own, root: root) else {
            throw CommunicationError(operation: what, reason: "rank \(root) sent nothing")
        }
        return value
    }
}

/// A failure of the communication layer: no further agreement with the other ranks is possible.
package struct CommunicationError: Error, ReportableError {
    /// The failed operation, for example "broadcast of 1,024 bytes from rank 0".
    package let operation: String
    /// MPI's error text, or the found and the expected value.
    package let reason: String

    package init(operation: String, reason: String) {
        self.operation = operation
        self.reason = reason
    }

    package var message: String { "communication failed in \(operation): \(reason)" }
    package var exitStatus: Int32 { ExitStatus.crash }
}
