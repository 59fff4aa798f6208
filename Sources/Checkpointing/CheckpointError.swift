import FileFormats
import Foundation
import Support

/// Why a checkpoint cannot be used or written, in one line that names the file or folder.
package struct CheckpointError: ReportableError, Equatable {
    package enum Kind: Equatable, Sendable {
        /// A file or folder is missing or cannot be read or written.
        case inaccessible
        /// The checkpoint is damaged or truncated; an older one may be usable.
        case damaged
        /// The checkpoint is intact, but belongs to another model or was written by a newer version; an older
        /// one would not be usable either.
        case incompatible
    }

    package let kind: Kind
    package let path: String
    package let detail: String
    /// `errno` of the failed file operation; 0 for any other reason.
    package let code: Int32

    package init(_ kind: Kind, _ path: String, _ detail: String, code: Int32 = 0) {
        self.kind = kind
        self.path = path
        self.detail = detail
        self.code = code
    }

    /// A failed system call.
    ///
    /// - Parameter operation: such as "cannot be created"; the system's reason is appended.
    package static func system(_ path: String, _ operation: String, code: Int32 = errno) -> CheckpointError {
        CheckpointError(.inaccessible, path, "\(operation): \(systemReason(code))", code: code)
    }

    package var message: String { "\(path): \(detail)" }
    package var exitStatus: Int32 { ExitStatus.forSystemError(code, otherwise: ExitStatus.refused) }

    /// Converts an error that occurred while writing.
    init(writing error: any Error, to path: String) {
        switch error {
        case let error as CheckpointError: self = error
        case let error as SafetensorsError:
            self.init(.inaccessible, error.path, error.detail, code: error.code)
        case let error as FileError: self.init(.inaccessible, error.path, error.detail, code: error.code)
        default:
            self.init(.inaccessible, path, "cannot be written: \(error)", code: systemCode(of: error))
        }
    }
}
