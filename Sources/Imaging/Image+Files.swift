import CImageFiles
import Foundation
import Support

extension Image {
    /// The supported file formats, detected by their first bytes.
    enum Format {
        case png, jpeg, webp

        init?(_ bytes: [UInt8]) {
            if bytes.starts(with: [0x89, 0x50, 0x4E, 0x47]) {
                self = .png
            } else if bytes.starts(with: [0xFF, 0xD8]) {
                self = .jpeg
            } else if WebPHeader.recognizes(bytes) {
                self = .webp
            } else {
                return nil
            }
        }
    }

    /// Decodes a PNG, JPEG or still WebP to upright 8-bit RGB.
    ///
    /// Grayscale and palette images are expanded, alpha is composited on white, 16 bits are scaled to 8, CMYK
    /// is converted, and the EXIF orientation is applied. A truncated image throws an error and is never
    /// returned incomplete.
    ///
    /// - Parameters:
    ///   - name: the file's name, for errors.
    ///   - minimumSide: images with a shorter side are rejected.
    ///   - limits: larger images are rejected.
    package static func decode(
        _ bytes: [UInt8], name: String, minimumSide: Int = Image.minimumSide, limits: ImageLimits = .standard
    ) throws(ImageError) -> Image {
        var picture = cimg_picture()
        guard let format = Format(bytes) else {
            let found = ForeignFormat.describe(bytes)
            let remedy = found.remedy.map { "; \($0)" } ?? ""
            throw ImageError(
                .notAnImage, name: name, "not an image: \(found.kind); expected PNG, JPEG or WebP\(remedy)")
        }
        if format == .webp {
            guard let header = WebPHeader(bytes) else {
                throw ImageError(.corrupt, name: name, "damaged or truncated image: invalid WebP header")
            }
            guard !header.isAnimated else {
                throw ImageError(
                    .animated, name: name,
                    "an animated WebP; expected a still image; extract a frame: webpmux -get frame 1 IN.webp "
                        + "-o OUT.webp, or with ImageMagick: convert 'IN.webp[0]' OUT.png")
            }
        }
        let orientation = exifOrientation(of: bytes)
        let status =
            switch format {
            case .png: cimg_decode_png(bytes, bytes.count, UInt64(limits.maximumPixels), &picture)
            case .jpeg: cimg_decode_jpeg(bytes, bytes.count, UInt64(limits.maximumPixels), &picture)
            case .webp: cimg_decode_webp(bytes, bytes.count, UInt64(limits.maximumPixels), &picture)
            }
        defer { cimg_free(picture.pixels) }
        let (width, height) = (Int(picture.width), Int(picture.height))
        switch status {
        case CIMG_OK: break
        case CIMG_TOO_LARGE:
            throw ImageError(
                .tooLarge, name: name,
                "\(width)x\(height) pixels; expected at most \(limits.text); raise the limit with --max-megapixels"
            )
        case CIMG_OUT_OF_MEMORY:
            throw ImageError(.inaccessible, name: name, "not enough memory for \(width)x\(height) pixels")
        default:
            let message = withUnsafeBytes(of: picture.message) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            throw ImageError(.corrupt, name: name, "damaged or truncated image: \(message)")
        }
        guard min(width, height) >= minimumSide else {
            throw ImageError(
                .tooSmall, name: name,
                "\(width)x\(height) pixels; expected at least \(minimumSide) on each side")
        }
        let pixels = [UInt8](UnsafeBufferPointer(start: picture.pixels, count: 3 * width * height))
        return Image(width: width, height: height, pixels: pixels).upright(orientation: orientation)
    }

    /// Reads and decodes a PNG, JPEG or WebP file; see ``decode(_:name:minimumSide:limits:)``.
    package static func read(
        _ path: String, minimumSide: Int = Image.minimumSide, limits: ImageLimits = .standard
    ) throws(ImageError) -> Image {
        try decode(
            ReadOnlyFile(path).image(limits: limits), name: path, minimumSide: minimumSide, limits: limits)
    }

    /// The image as a PNG file, RGB or grayscale, with text chunks, which `exiftool` and image viewers show.
    ///
    /// - Parameter text: keys are 1 to 79 ASCII characters; values are any text.
    package func pngData(text: KeyValuePairs<String, String> = [:]) -> [UInt8] {
        pngData(text: text.map { ($0.key, $0.value) })
    }

    /// The image as a PNG file, with text chunks in the given order.
    package func pngData(text: [(key: String, value: String)]) -> [UInt8] {
        for (key, _) in text {
            precondition((1...79).contains(key.utf8.count) && key.utf8.allSatisfy { (32..<127).contains($0) })
        }
        let keys: [UnsafeMutablePointer<CChar>?] = text.map { strdup($0.key) }
        let values: [UnsafeMutablePointer<CChar>?] = text.map { strdup($0.value) }
        defer { for string in keys + values { free(string) } }
        var file = cimg_file()
        let status = cimg_encode_png(
            pixels, UInt32(width), UInt32(height), Int32(channels), keys.map { UnsafePointer($0) },
            values.map { UnsafePointer($0) }, text.count, &file)
        precondition(status == CIMG_OK, "libpng could not encode: out of memory")
        defer { cimg_free(file.bytes) }
        return [UInt8](UnsafeBufferPointer(start: file.bytes, count: file.count))
    }

    /// Writes a PNG file atomically, through a temporary file.
    package func write(to path: String, text: KeyValuePairs<String, String> = [:]) throws(ImageError) {
        try Image.write(png: pngData(text: text), to: path)
    }

    /// Writes a PNG file with text chunks in the given order.
    package func write(to path: String, text: [(key: String, value: String)]) throws(ImageError) {
        try Image.write(png: pngData(text: text), to: path)
    }

    /// Writes an already encoded PNG file.
    package static func write(png bytes: [UInt8], to path: String) throws(ImageError) {
        do throws(FileError) {
            try AtomicFile.write(bytes, to: path, isDurable: false)
        } catch {
            throw ImageError(.inaccessible, name: path, error.detail, code: error.code)
        }
    }

    /// The text chunks (tEXt, and uncompressed iTXt) of a PNG, in file order.
    package static func pngText(_ bytes: [UInt8]) -> [(key: String, value: String)] {
        var found: [(key: String, value: String)] = []
        var at = 8
        while at + 12 <= bytes.count {
            let length = bytes[at..<at + 4].reduce(0) { $0 << 8 | Int($1) }
            guard at + 12 + length <= bytes.count else { break }
            let data = bytes[at + 8..<at + 8 + length]
            let type = String(decoding: bytes[at + 4..<at + 8], as: UTF8.self)
            if type == "tEXt" || type == "iTXt", let end = data.firstIndex(of: 0) {
                var value = data[(end + 1)...]
                if type == "iTXt" {
                    // Compression flag and method, then language and translated key, each terminated by 0.
                    guard value.first == 0 else {
                        at += 12 + length
                        continue
                    }
                    value = value.dropFirst(2)
                    for _ in 0..<2 { value = value.drop { $0 != 0 }.dropFirst() }
                }
                found.append(
                    (String(decoding: data[..<end], as: UTF8.self), String(decoding: value, as: UTF8.self)))
            }
            at += 12 + length
        }
        return found
    }
}
