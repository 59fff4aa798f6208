import Support

/// An error in an image or a collection of images; the message is one line that names it.
package struct ImageError: ReportableError, Equatable, Sendable {
    package enum Kind: Equatable, Sendable {
        /// The file or folder is missing or cannot be read or written.
        case inaccessible
        /// The first bytes are not those of a PNG, a JPEG or a WebP.
        case notAnImage
        /// A supported format, but damaged or truncated.
        case corrupt
        /// Several frames, of which none is the image.
        case animated
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
        (self.code, self.kind, self.name, self.detail) = (code, kind, name, detail)
    }

    package var message: String { "\(name): \(detail)" }
    package var exitStatus: Int32 { ExitStatus.forSystemError(code, otherwise: ExitStatus.refused) }
}

/// Size limits for images. They are checked before memory is allocated, so that neither a mistake nor a
/// hostile file can exhaust memory.
package struct ImageLimits: Equatable, Sendable {
    /// Width times height.
    package var maximumPixels: Int

    /// 134 megapixels.
    package static let standard = ImageLimits(maximumPixels: Image.maximumPixels)
    /// The range of `--max-megapixels`: a JPEG has at most 65,535 pixels on each side.
    package static let megapixels = 1...4_295

    package init(maximumPixels: Int) { self.maximumPixels = maximumPixels }

    /// - Parameter megapixels: millions of pixels; nil for the standard limit.
    package init(megapixels: Int?) {
        self = megapixels.map { ImageLimits(maximumPixels: $0 * 1_000_000) } ?? .standard
    }

    /// Limit on the file size in bytes: 8 per pixel, as for uncompressed 16-bit RGBA, and 64 MiB for the
    /// remainder.
    package var maximumFileBytes: Int { 8 * maximumPixels + 64 << 20 }

    /// Throws if a file is larger than an image may be.
    ///
    /// - Parameter name: the image's name in the error.
    package func check(fileBytes: Int, name: String) throws(ImageError) {
        guard fileBytes > maximumFileBytes else { return }
        throw ImageError(
            .tooLarge, name: name,
            "\(fileBytes) bytes; expected at most \(maximumFileBytes) (8 per pixel of \(text), plus 64 MiB); if it "
                + "is an image, raise the limit with --max-megapixels")
    }

    /// The limit as it is formatted in messages.
    var text: String { "\(maximumPixels / 1_000_000) megapixels" }
}

extension ReadOnlyFile {
    /// Reads the bytes of an image. If the first bytes are not those of an image, only they are returned, which
    /// suffices for `Image.decode` to describe the file.
    package func image(limits: ImageLimits) throws(ImageError) -> [UInt8] {
        try limits.check(fileBytes: size, name: name)
        let head = try read(at: 0, count: min(16, size))
        guard Image.Format(head) != nil else { return head }
        return try read(at: 0, count: size)
    }
}
