/// The orientation that a camera wrote into a JPEG's EXIF block: 1 (upright, or nothing found) to 8.
///
/// Read here and not through a library because it is one number at a fixed kind of place; every step checks its
/// bounds, and a malformed block counts as no orientation.
/// Source: Exif 2.32, section 4.5.4; TIFF 6.0, tag 274.
func exifOrientation(jpeg bytes: [UInt8]) -> Int {
    var at = 2
    while at + 4 <= bytes.count, bytes[at] == 0xFF {
        let marker = bytes[at + 1]
        // Past the start of scan there are only pixels.
        if marker == 0xDA || marker == 0xD9 { return 1 }
        let length = Int(bytes[at + 2]) << 8 | Int(bytes[at + 3])
        guard length >= 2, at + 2 + length <= bytes.count else { return 1 }
        let body = bytes[(at + 4)..<(at + 2 + length)]
        if marker == 0xE1, body.starts(with: Array("Exif\0\0".utf8)) {
            return tiffOrientation(body.dropFirst(6)) ?? 1
        }
        at += 2 + length
    }
    return 1
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
