import Foundation

/// The exit codes of `disttrain`. Anything else is a crash.
package enum ExitStatus {
    package static let success: Int32 = 0
    /// A failure that nobody foresaw.
    package static let crash: Int32 = 1
    /// Bad usage or configuration.
    package static let usage: Int32 = 2
    /// Data or a checkpoint was refused.
    package static let refused: Int32 = 3
    /// Training was stopped by a numerical fault.
    package static let numericalFault: Int32 = 4
    /// A disk or file system failed (EX_IOERR): the same command may succeed later, and the launcher restarts it.
    package static let storageFault: Int32 = 74
    /// Stopped early with a checkpoint; run me again (EX_TEMPFAIL).
    package static let runAgain: Int32 = 75
}

/// The system errors after which the same operation may succeed later, or on another host: a full, failing, slow or
/// unmounted file system, or too many open files.
package enum StorageFault {
    private static let codes: Set<Int32> = [
        EIO, ENOSPC, EDQUOT, ESTALE, EROFS, ENODEV, ENXIO, ETIMEDOUT, EREMOTEIO, ENOTCONN, EHOSTDOWN,
        EHOSTUNREACH,
        EMFILE, ENFILE, ENOMEM, EAGAIN, EBUSY,
    ]

    package static func includes(_ code: Int32) -> Bool { codes.contains(code) }

    /// Whether any error, of this rank or another, comes from a storage fault.
    package static func includes(_ error: any Error) -> Bool {
        FailureReport(error).exitStatus == ExitStatus.storageFault
    }
}

extension ExitStatus {
    /// For an error that would end with `otherwise` but may come from a storage fault.
    ///
    /// - Parameter code: `errno` of the failed operation; 0 for any other reason.
    package static func forSystemError(_ code: Int32, otherwise: Int32) -> Int32 {
        StorageFault.includes(code) ? storageFault : otherwise
    }
}

/// An error that knows what to tell the user and which code the process ends with.
package protocol ReportableError: Error, CustomStringConvertible {
    /// One line: what, where, found, expected, what to do. Empty when everything has been said already.
    var message: String { get }
    /// One of `ExitStatus`.
    var exitStatus: Int32 { get }
}

extension ReportableError {
    package var description: String { message }
}
