import CZlib

/// The orientation in the EXIF metadata of a JPEG (APP1 segment), PNG (eXIf chunk) or WebP (EXIF chunk): 1
/// (upright, or no metadata) to 8.
///
/// It is parsed here rather than with a library because it is a single number at a well-defined place. Each
/// step checks its bounds, and malformed metadata is ignored.
/// Source: Exif 2.32, section 4.5.4; TIFF 6.0, tag 274; PNG, third edition, section 11.3.3.
package func exifOrientation(of bytes: [UInt8]) -> Int {
    switch Image.Format(bytes) {
    case .jpeg: exifBlock(jpeg: bytes).flatMap(tiffOrientation) ?? 1
    case .png: exifBlock(png: bytes).flatMap(tiffOrientation) ?? 1
    case .webp: WebPHeader.exif(bytes).flatMap(tiffOrientation) ?? 1
    case nil: 1
    }
}

/// The TIFF structure in the first EXIF segment of a JPEG.
private func exifBlock(jpeg bytes: [UInt8]) -> ArraySlice<UInt8>? {
    var found: ArraySlice<UInt8>?
    forEachSegment(jpeg: bytes) { marker, body in
        guard marker == 0xE1, body.starts(with: Array("Exif\0\0".utf8)) else { return true }
        found = body.dropFirst(6)
        return false
    }
    return found
}

/// Iterates over the segments of a JPEG before the image data.
///
/// - Parameter body: called with the marker and the segment's content; returns whether to continue.
private func forEachSegment(jpeg bytes: [UInt8], _ body: (UInt8, ArraySlice<UInt8>) -> Bool) {
    var at = 2
    while at + 4 <= bytes.count, bytes[at] == 0xFF {
        let marker = bytes[at + 1]
        // A marker may be preceded by any number of fill bytes.
        if marker == 0xFF {
            at += 1
            continue
        }
        // Only image data follows the start of scan.
        if marker == 0xDA || marker == 0xD9 { return }
        // The length includes its own two bytes; libjpeg treats a smaller value as an empty segment.
        let length = max(2, Int(bytes[at + 2]) << 8 | Int(bytes[at + 3]))
        guard at + 2 + length <= bytes.count,
            body(marker, bytes[(at + 4)..<(at + 2 + length)])
        else { return }
        at += 2 + length
    }
}

/// The eXIf chunk of a PNG; a chunk with a wrong checksum is ignored, as in libpng.
private func exifBlock(png bytes: [UInt8]) -> ArraySlice<UInt8>? {
    var at = 8
    while at + 12 <= bytes.count {
        let length = bigEndian(bytes, at)
        guard length <= bytes.count - at - 12 else { return nil }
        let type = bytes[(at + 4)..<(at + 8)]
        if type.elementsEqual("eXIf".utf8) {
            let checked = Array(bytes[(at + 4)..<(at + 8 + length)])
            guard crc32_z(0, checked, checked.count) == UInt(bigEndian(bytes, at + 8 + length)) else {
                return nil
            }
            return bytes[(at + 8)..<(at + 8 + length)]
        }
        at += 12 + length
    }
    return nil
}

/// Reads four bytes; all must be within bounds.
private func bigEndian(_ bytes: [UInt8], _ at: Int) -> Int {
    bytes[at..<at + 4].reduce(0) { $0 << 8 | Int($1) }
}

private func tiffOrientation(_ tiff: ArraySlice<UInt8>) -> Int? {
    guard let first = tiff.first, first == 0x49 || first == 0x4D else { return nil }
    let littleEndian = first == 0x49

    func number(at offset: Int, bytes count: Int) -> Int? {
        guard offset >= 0, offset + count <= tiff.count else { return nil }
        let digits = tiff[(tiff.startIndex + offset)..<(tiff.startIndex + offset + count)]
        return littleEndian
            ? digits.reversed().reduce(0) { $0 << 8 | Int($1) } : digits.reduce(0) { $0 << 8 | Int($1) }
    }

    guard let directory = number(at: 4, bytes: 4), let entries = number(at: directory, bytes: 2) else {
        return nil
    }
    for entry in 0..<entries {
        let offset = directory + 2 + 12 * entry
        guard let tag = number(at: offset, bytes: 2) else { return nil }
        if tag == 0x0112, let value = number(at: offset + 8, bytes: 2) {
            return (1...8).contains(value) ? value : nil
        }
    }
    return nil
}

extension Image {
    /// Width and height of a PNG, JPEG or WebP after its EXIF orientation is applied, from its header and
    /// metadata only; nil if it has no valid header. The rest of the file may still be damaged.
    package static func size(of bytes: [UInt8]) -> (width: Int, height: Int)? {
        var size: (width: Int, height: Int)?
        switch Format(bytes) {
        case .png:
            guard bytes.count >= 24, bytes[12..<16].elementsEqual("IHDR".utf8) else { return nil }
            size = (bigEndian(bytes, 16), bigEndian(bytes, 20))
        case .jpeg:
            forEachSegment(jpeg: bytes) { marker, body in
                // Start of frame, of any coding process; C4, C8 and CC are tables or reserved.
                guard (0xC0...0xCF).contains(marker), ![0xC4, 0xC8, 0xCC].contains(marker) else {
                    return true
                }
                let sides = Array(body.dropFirst().prefix(4)).map(Int.init)
                if sides.count == 4 { size = (sides[2] << 8 | sides[3], sides[0] << 8 | sides[1]) }
                return false
            }
        case .webp: size = WebPHeader(bytes).map { ($0.width, $0.height) }
        case nil: return nil
        }
        guard let size, size.width > 0, size.height > 0 else { return nil }
        return exifOrientation(of: bytes) >= 5 ? (size.height, size.width) : size
    }
}
