/// The header of a WebP file.
///
/// It is parsed here so that the size is known, and an animation is recognised, before anything is decoded.
///
/// - Source: WebP Container Specification (RIFF chunks, VP8X); RFC 6386, section 9.1 (VP8); WebP Lossless
///   Bitstream Specification, section 3 (VP8L).
struct WebPHeader {
    let width: Int
    let height: Int
    let isAnimated: Bool

    /// The first 12 bytes are "RIFF", a size and "WEBP".
    static func recognizes(_ bytes: [UInt8]) -> Bool {
        bytes.count >= 12 && bytes[0..<4].elementsEqual("RIFF".utf8)
            && bytes[8..<12].elementsEqual("WEBP".utf8)
    }

    /// nil if the first chunk is none of the three kinds, or is incomplete.
    init?(_ bytes: [UInt8]) {
        guard Self.recognizes(bytes), bytes.count >= 30 else { return nil }
        switch String(decoding: bytes[12..<16], as: UTF8.self) {
        case "VP8X":
            (width, height) = (1 + littleEndian(bytes, 24, 3), 1 + littleEndian(bytes, 27, 3))
            isAnimated = bytes[20] & 0x02 != 0
        case "VP8 ":
            // A key frame: its tag and start code, then two numbers of 14 bits, each with 2 bits of scaling.
            guard bytes[20] & 1 == 0, bytes[23..<26].elementsEqual([0x9D, 0x01, 0x2A]) else { return nil }
            (width, height) = (littleEndian(bytes, 26, 2) & 0x3FFF, littleEndian(bytes, 28, 2) & 0x3FFF)
            isAnimated = false
        case "VP8L":
            guard bytes[20] == 0x2F else { return nil }
            let sides = littleEndian(bytes, 21, 4)
            (width, height) = (1 + sides & 0x3FFF, 1 + sides >> 14 & 0x3FFF)
            isAnimated = false
        default: return nil
        }
        guard width > 0, height > 0 else { return nil }
    }

    /// The TIFF structure of the first EXIF chunk. Some programs write JPEG's prefix before it.
    static func exif(_ bytes: [UInt8]) -> ArraySlice<UInt8>? {
        var at = 12
        while at + 8 <= bytes.count {
            let length = littleEndian(bytes, at + 4, 4)
            guard length <= bytes.count - at - 8 else { return nil }
            if bytes[at..<at + 4].elementsEqual("EXIF".utf8) {
                let body = bytes[(at + 8)..<(at + 8 + length)]
                return body.starts(with: "Exif\0\0".utf8) ? body.dropFirst(6) : body
            }
            at += 8 + length + length % 2
        }
        return nil
    }
}

/// Reads an unsigned number of `count` bytes; all must be within bounds.
private func littleEndian(_ bytes: [UInt8], _ at: Int, _ count: Int) -> Int {
    bytes[at..<at + count].reversed().reduce(0) { $0 << 8 | Int($1) }
}
