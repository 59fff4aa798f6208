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

    /// The limit as it is formatted in messages.
    var text: String { "\(maximumPixels / 1_000_000) megapixels" }
}

extension ReadOnlyFile {
    /// Reads the bytes of an image: the whole file, or a part of it. If the first bytes are not those of an
    /// image, only they are returned, which suffices for `Image.decode` to describe the file.
    ///
    /// - Parameter name: the image's name in errors; nil for the file's name.
    package func image(_ range: Range<Int>? = nil, name: String? = nil, limits: ImageLimits)
        throws(ImageError)
        -> [UInt8]
    {
        let range = range ?? 0..<size
        guard range.count <= limits.maximumFileBytes else {
            throw ImageError(
                .tooLarge, name: name ?? self.name,
                "\(range.count) bytes; expected at most \(limits.maximumFileBytes), which is 8 for each of "
                    + "\(limits.text) and 64 MiB; raise the limit with --max-megapixels, if it is an image")
        }
        let head = try read(at: range.lowerBound, count: min(16, range.count))
        guard Image.Format(head) != nil else { return head }
        return try read(at: range.lowerBound, count: range.count)
    }
}
