/// A run that cannot start as requested.
package struct RunError: ReportableError {
    package let message: String
    package let exitStatus: Int32
    package init(_ message: String, exitStatus: Int32 = ExitStatus.usage) {
        self.message = message
        self.exitStatus = exitStatus
    }
}
