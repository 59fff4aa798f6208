/// Image formats that the program does not read, but that other programs convert.
package enum ForeignFormat {
    /// Names and file extensions, the usual one first.
    private static let known: [(name: String, extensions: [String])] = [
        ("a GIF", ["gif"]), ("a BMP", ["bmp", "dib"]), ("a TIFF", ["tif", "tiff"]),
        ("an AVIF", ["avif"]), ("a HEIC", ["heic", "heif"]), ("a JPEG XL", ["jxl"]),
        ("a JPEG 2000", ["jp2", "j2k"]), ("a Photoshop file", ["psd"]),
        ("a PNM", ["ppm", "pgm", "pbm", "pnm"]),
        ("a DICOM", ["dcm"]), ("a TGA", ["tga"]), ("an OpenEXR", ["exr"]),
    ]

    /// The command that converts files to PNG, if any of the names has an extension of a known format.
    package static func conversion(of names: [String]) -> String? {
        for name in names {
            guard let dot = name.lastIndex(of: ".") else { continue }
            let end = name[name.index(after: dot)...].lowercased()
            if known.contains(where: { $0.extensions.contains(end) }) { return command(end) }
        }
        return nil
    }

    private static func command(_ end: String) -> String {
        "convert such files, for example with ImageMagick: mogrify -format png *.\(end)"
    }

    /// Describes a file by its first bytes, with the remedy if it is a known format.
    static func describe(_ bytes: [UInt8]) -> (kind: String, remedy: String?) {
        func has(_ text: String, at offset: Int = 0) -> Bool {
            bytes.dropFirst(offset).starts(with: text.utf8)
        }
        func format(_ end: String) -> (kind: String, remedy: String?) {
            (known.first { $0.extensions[0] == end }?.name ?? end, command(end))
        }
        if bytes.isEmpty { return ("the file is empty", nil) }
        if has("GIF8") { return format("gif") }
        if has("BM") { return format("bmp") }
        if bytes.starts(with: [0x49, 0x49, 0x2A, 0]) || bytes.starts(with: [0x4D, 0x4D, 0, 0x2A]) {
            return format("tif")
        }
        if has("ftypavi", at: 4) { return format("avif") }
        if ["ftyphei", "ftyphev", "ftypmif1"].contains(where: { has($0, at: 4) }) { return format("heic") }
        if bytes.starts(with: [0xFF, 0x0A]) || has("JXL ", at: 4) { return format("jxl") }
        if has("jP  ", at: 4) { return format("jp2") }
        if has("8BPS") { return format("psd") }
        if has("RIFF") { return ("a RIFF file that is not a WebP", nil) }
        if has("<") { return ("HTML, XML or SVG text", nil) }
        let head = bytes.prefix(8).map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }
        return ("it starts with \(head.joined(separator: " "))", nil)
    }
}
