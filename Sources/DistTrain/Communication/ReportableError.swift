import Foundation
import LDMModel

/// The exit codes of `disttrain`. Anything else is a crash.
public enum ExitStatus {
    public static let success: Int32 = 0
    /// A failure that nobody foresaw.
    public static let crash: Int32 = 1
    /// Bad usage or configuration.
    public static let usage: Int32 = 2
    /// Data or a checkpoint was refused.
    public static let refused: Int32 = 3
    /// Training was stopped by a numerical fault.
    public static let numericalFault: Int32 = 4
    /// A disk or file system failed (EX_IOERR): the same command may succeed later, and the launcher restarts it.
    public static let storageFault: Int32 = 74
    /// Stopped early with a checkpoint; run me again (EX_TEMPFAIL).
    public static let runAgain: Int32 = 75
}

/// The system errors after which the same operation may succeed later, or on another host: a full, failing, slow or
/// unmounted file system, or too many open files.
public enum StorageFault {
    private static let codes: Set<Int32> = [
        EIO, ENOSPC, EDQUOT, ESTALE, EROFS, ENODEV, ENXIO, ETIMEDOUT, EREMOTEIO, ENOTCONN, EHOSTDOWN,
        EHOSTUNREACH,
        EMFILE, ENFILE, ENOMEM, EAGAIN, EBUSY,
    ]

    public static func includes(_ code: Int32) -> Bool { codes.contains(code) }

    /// Whether any error, of this rank or another, comes from a storage fault.
    public static func includes(_ error: any Error) -> Bool {
        FailureReport(error).exitStatus == ExitStatus.storageFault
    }
}

extension ExitStatus {
    /// For an error that would end with `otherwise` but may come from a storage fault.
    ///
    /// - Parameter code: `errno` of the failed operation; 0 for any other reason.
    static func forSystemError(_ code: Int32, otherwise: Int32) -> Int32 {
        StorageFault.includes(code) ? storageFault : otherwise
    }
}

/// An error that knows what to tell the user and which code the process ends with.
public protocol ReportableError: Error, CustomStringConvertible {
    /// One line: what, where, found, expected, what to do. Empty when everything has been said already.
    var message: String { get }
    /// One of `ExitStatus`.
    var exitStatus: Int32 { get }
}

extension ReportableError {
    public var description: String { message }
}

/// What any error amounts to for the user: a line and an exit code.
public struct FailureReport: Codable, Equatable, Sendable {
    public let message: String
    public let exitStatus: Int32

    /// The message becomes one line, whatever names out of files it quotes.
    public init(message: String, exitStatus: Int32) {
        self.message = message.oneLine()
        self.exitStatus = exitStatus
    }

    /// Of a file that cannot be used, which `errno` may explain.
    private init(message: String, code: Int32) {
        self.init(
            message: message, exitStatus: ExitStatus.forSystemError(code, otherwise: ExitStatus.refused))
    }

    public init(_ error: any Error) {
        switch error {
        case let error as any ReportableError:
            self.init(message: error.message, exitStatus: error.exitStatus)
        case let error as ConfigError:
            self.init(message: error.description, exitStatus: ExitStatus.usage)
        case let error as ModelFolderError: self.init(message: error.description, code: error.code)
        case is FirstStageError:
            self.init(message: String(describing: error), exitStatus: ExitStatus.refused)
        case let error as FileError: self.init(message: error.description, code: error.code)
        case let error as SafetensorsError: self.init(message: error.description, code: error.code)
        case let error as ImageError: self.init(message: error.description, code: error.code)
        case let error as CocoaError:
            // Foundation's message leaves out the file.
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
