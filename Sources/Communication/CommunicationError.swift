import Support

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
