/// The largest image that is read. Both limits are checked before anything is allocated, so that neither a mistake nor a
/// hostile file can fill the memory.
package struct ImageLimits: Equatable, Sendable {
    /// Width times height.
    package var maximumPixels: Int

    /// 134 megapixels.
    package static let standard = ImageLimits(maximumPixels: Image.maximumPixels)
    /// What `--max-megapixels` accepts: a JPEG has at most 65,535 pixels on each side.
    package static let megapixels = 1...4_295

    package init(maximumPixels: Int) { self.maximumPixels = maximumPixels }

    /// - Parameter megapixels: millions of pixels; nil for the standard limit.
    package init(megapixels: Int?) {
        self = megapixels.map { ImageLimits(maximumPixels: $0 * 1_000_000) } ?? .standard
    }

    /// Bytes of a file: 8 a pixel, which is 16-bit RGBA without any compression, and 64 MiB for the rest.
    package var maximumFileBytes: Int { 8 * maximumPixels + 64 << 20 }

    /// How messages write the limit.
    var text: String { "\(maximumPixels / 1_000_000) megapixels" }
}

extension ReadOnlyFile {
    /// The bytes of an image: all of a file, or a part of it. Of what is no image by its first bytes, only those, from
    /// which `Image.decode` describes what was found.
    ///
    /// - Parameter name: what errors call the image; nil for the file's name.
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
