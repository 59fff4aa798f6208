import Support

/// A dataset, or a prepared folder, that cannot be used; in one line that says what to do.
package struct DatasetError: ReportableError, Equatable, Sendable {
    package enum Kind: Equatable, Sendable {
        /// The folder or file is missing, or cannot be read or written.
        case inaccessible
        /// A shard or the manifest is cut short, missing or damaged.
        case damaged
        /// The data were made from another source, transform or first stage than the one asked for.
        case mismatch
        /// Images that cannot be decoded.
        case badImages
        /// Options that do not go together.
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
