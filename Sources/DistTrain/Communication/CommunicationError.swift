/// A failure of the message layer itself: nothing can be agreed on with the other ranks any more.
public struct CommunicationError: Error, ReportableError {
    /// What was being done, for example "broadcast of 1,024 bytes from rank 0".
    public let operation: String
    /// MPI's own words, or what was found instead of what was expected.
    public let reason: String

    public init(operation: String, reason: String) {
        self.operation = operation
        self.reason = reason
    }

    public var message: String { "communication failed in \(operation): \(reason)" }
    public var exitStatus: Int32 { ExitStatus.crash }
}
