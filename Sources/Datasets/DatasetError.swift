import Support

/// A dataset or prepared folder that cannot be used; the message is one line with the remedy.
package struct DatasetError: ReportableError, Equatable, Sendable {
    package enum Kind: Equatable, Sendable {
        /// The folder or file is missing, or cannot be read or written.
        case inaccessible
        /// A shard or the manifest is truncated, missing or damaged.
        case damaged
        /// The data was made from another source, transform or first stage than requested.
        case mismatch
        /// Images that cannot be decoded.
        case badImages
        /// Incompatible options.
        case usage
    }

    package let kind: Kind
    package let message: String
    /// `errno` of the failed file operation; 0 for any other reason.
    package let code: Int32

    package init(_ kind: Kind, _ message: String, code: Int32 = 0) {
        self.kind = kind
        self.message = message
        self.code = code
    }

    package var exitStatus: Int32 {
        ExitStatus.forSystemError(code, otherwise: kind == .usage ? ExitStatus.usage : ExitStatus.refused)
    }
}
