import Foundation

/// An error as it is reported to the user: a one-line message and an exit code.
package struct FailureReport: Codable, Equatable, Sendable {
    package let message: String
    package let exitStatus: Int32

    /// Reduces the message to one line, because it may quote names from untrusted files.
    package init(message: String, exitStatus: Int32) {
        self.message = message.oneLine()
        self.exitStatus = exitStatus
    }

    package init(_ error: any Error) {
        switch error {
        case let error as any ReportableError:
            self.init(message: error.message, exitStatus: error.exitStatus)
        case let error as CocoaError:
            // Foundation's message omits the path.
            let place = error.filePath.map { "\($0): " } ?? ""
            let code = systemCode(of: error)
            let status = ExitStatus.forSystemError(code, otherwise: ExitStatus.crash)
            self.init(message: place + systemReason(of: error), exitStatus: status)
        case let error as any LocalizedError where error.errorDescription != nil:
            self.init(message: error.errorDescription ?? "", exitStatus: ExitStatus.crash)
        default:
            self.init(message: String(describing: error), exitStatus: ExitStatus.crash)
        }
    }
}
