import Support

/// What is wrong with a picture, or with a collection of pictures, in one line that names it.
package struct ImageError: ReportableError, Equatable, Sendable {
    package enum Kind: Equatable, Sendable {
        /// The file or folder is missing or cannot be read or written.
        case inaccessible
        /// Neither PNG nor JPEG by its first bytes.
        case notAnImage
        /// PNG or JPEG, but damaged or cut short.
        case corrupt
        /// A side is below the least that makes sense for training.
        case tooSmall
        /// More pixels than is allowed: a mistake, or an attack.
        case tooLarge
        /// The archive or record file is damaged, cut short, or of another format.
        case badArchive
        /// There is no image in the source.
        case empty
        /// Files that are no images lie among the images.
        case mixed
        /// The source's name is none that is known.
        case unknownSource
    }

    package let kind: Kind
    /// The file, archive member or source concerned.
    package let name: String
    /// What was found, what was expected, and what to do.
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
