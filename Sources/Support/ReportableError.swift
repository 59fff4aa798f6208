import Foundation

/// The exit codes of `disttrain`. Any other code is a crash.
package enum ExitStatus {
    package static let success: Int32 = 0
    /// An unexpected failure.
    package static let crash: Int32 = 1
    /// Invalid usage or configuration.
    package static let usage: Int32 = 2
    /// Data or a checkpoint was rejected.
    package static let refused: Int32 = 3
    /// A numerical fault stopped training.
    package static let numericalFault: Int32 = 4
    /// A disk or file system failed (EX_IOERR). The same command may succeed later; the launcher restarts it.
    package static let storageFault: Int32 = 74
    /// Stopped early with a checkpoint; the same command resumes the run (EX_TEMPFAIL).
    package static let runAgain: Int32 = 75
}

/// System errors after which the same operation may succeed later or on another host: a full, failing, slow
/// or unmounted file system, or too many open files.
package enum StorageFault {
    private static let codes: Set<Int32> = [
        EIO, ENOSPC, EDQUOT, ESTALE, EROFS, ENODEV, ENXIO, ETIMEDOUT, EREMOTEIO, ENOTCONN, EHOSTDOWN,
        EHOSTUNREACH,
        EMFILE, ENFILE, ENOMEM, EAGAIN, EBUSY,
    ]

    package static func includes(_ code: Int32) -> Bool { codes.contains(code) }

    /// Whether an error, of this rank or another, is a storage fault.
    package static func includes(_ error: any Error) -> Bool {
        FailureReport(error).exitStatus == ExitStatus.storageFault
    }
}

extension ExitStatus {
    /// The exit code for an error that would end with `otherwise` unless it is a storage fault.
    ///
    /// - Parameter code: `errno` of the failed operation; 0 for any other reason.
    package static func forSystemError(_ code: Int32, otherwise: Int32) -> Int32 {
        StorageFault.includes(code) ? storageFault : otherwise
    }
}

/// An error with a message for the user and the exit code of the process.
package protocol ReportableError: Error, CustomStringConvertible {
    /// One line: what, where, found, expected, remedy. Empty if everything has been reported already.
    var message: String { get }
    /// One of `ExitStatus`.
    var exitStatus: Int32 { get }
}

extension ReportableError {
    /// The message as one line also where it quotes names from untrusted files.
    package var description: String { message.oneLine() }
}

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

/// The system's error text for an `errno` value.
package func systemReason(_ code: Int32 = errno) -> String { String(cString: strerror(code)) }

/// The error text behind an error of Foundation's file functions, whose own message often gives no reason
/// ("The operation could not be completed").
package func systemReason(of error: any Error) -> String {
    let code = systemCode(of: error)
    return code == 0 ? error.localizedDescription : String(cString: strerror(code))
}

/// The `errno` behind an error of Foundation's file functions; 0 if there is none.
package func systemCode(of error: any Error) -> Int32 {
    // On Linux the underlying error is a Swift error; only the cast makes it an NSError.
    let cause = (error as NSError).userInfo[NSUnderlyingErrorKey] as? any Error
    for error in [cause ?? error, error] as [NSError] where error.domain == NSPOSIXErrorDomain {
        return Int32(error.code)
    }
    return 0
}

/// A run that cannot start as requested.
package struct RunError: ReportableError {
    package let message: String
    package let exitStatus: Int32
    package init(_ message: String, exitStatus: Int32 = ExitStatus.usage) {
        self.message = message
        self.exitStatus = exitStatus
    }
}
