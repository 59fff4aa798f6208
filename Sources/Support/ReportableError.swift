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
    package var description: String { message }
}
