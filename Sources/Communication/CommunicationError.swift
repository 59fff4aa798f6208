import Support

/// A failure of the message layer itself: nothing can be agreed on with the other ranks any more.
package struct CommunicationError: Error, ReportableError {
    /// What was being done, for example "broadcast of 1,024 bytes from rank 0".
    package let operation: String
    /// MPI's own words, or what was found instead of what was expected.
    package let reason: String

    package init(operation: String, reason: String) {
        self.operation = operation
        self.reason = reason
    }

    package var message: String { "communication failed in \(operation): \(reason)" }
    package var exitStatus: Int32 { ExitStatus.crash }
}
