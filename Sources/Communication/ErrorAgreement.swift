import Support

/// Another rank failed in something that all ranks did together. That rank prints its own error.
package struct RemoteFailure: ReportableError {
    /// The lowest rank that failed.
    package let rank: Int
    /// What was being done.
    package let what: String
    package let report: FailureReport

    package var message: String { "rank \(rank): \(report.message)" }
    package var exitStatus: Int32 { report.exitStatus }
}

extension Communicator {
    /// Does something on every rank that may fail on any of them, and lets all ranks end alike.
    ///
    /// A rank that threw by itself would leave the others waiting in their next collective for ever. Here
    /// every rank runs `body`, then all compare notes: when one failed, all throw.
    ///
    /// - Parameters:
    ///   - what: what is being done, for example "opening the dataset".
    ///   - body: must not communicate, since a rank that fails half-way would be out of step.
    /// - Throws: the rank's own error where `body` threw it, `RemoteFailure` elsewhere.
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

    /// Does something on one rank and hands the result to all, or its error.
    ///
    /// - Throws: on `root` the error of `body`, elsewhere `RemoteFailure`.
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
