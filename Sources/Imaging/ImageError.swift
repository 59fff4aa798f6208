import Support

/// An error in an image or a collection of images; the message is one line that names it.
package struct ImageError: ReportableError, Equatable, Sendable {
    package enum Kind: Equatable, Sendable {
        /// The file or folder is missing or cannot be read or written.
        case inaccessible
        /// The first bytes are neither those of a PNG nor of a JPEG.
        case notAnImage
        /// PNG or JPEG, but damaged or truncated.
        case corrupt
        /// A side is below the minimum for training.
        case tooSmall
        /// More pixels than allowed, by mistake or in an attack.
        case tooLarge
        /// The archive or record file is damaged, truncated, or of another format.
        case badArchive
        /// The source contains no images.
        case empty
        /// The source also contains files that are not images.
        case mixed
        /// The source's name is not recognized.
        case unknownSource
    }

    package let kind: Kind
    /// The affected file, archive member or source.
    package let name: String
    /// The found and the expected value, and the remedy.
    package let detail: String
    /// `errno` of the failed file operation; 0 for any other reason.
    package let code: Int32

    package init(_ kind: Kind, name: String, _ detail: String, code: Int32 = 0) {
        self.code = code
        self.kind = kind
        self.name = name
        self.detail = detail
    }

    package var message: String { "\(name): \(detail)" }
    package var exitStatus: Int32 { ExitStatus.forSystemError(code, otherwise: ExitStatus.refused) }
}
