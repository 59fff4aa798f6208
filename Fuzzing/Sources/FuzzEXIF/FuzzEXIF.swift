import Harness
import Imaging

/// A PNG, JPEG or WebP; or, where the input begins as TIFF does, that as the EXIF metadata of all three.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let input = Array(UnsafeBufferPointer(start: start, count: count))
    guard let first = input.first else { return 0 }
    if first == 0x49 || first == 0x4D {
        let found = [jpeg(input), png(input), webp(input)].map { exifOrientation(of: $0) }
        precondition(Set(found).count == 1 && (1...8).contains(found[0]), "\(found) in JPEG, PNG and WebP")
        return 0
    }
    precondition((1...8).contains(exifOrientation(of: input)))
    let size = Image.size(of: input)
    expectCleanly(knows: { $0 is ImageError }) {
        let image = try Image.decode(input, name: "fuzz", minimumSide: 1, limits: ImageLimits(megapixels: 1))
        precondition(size.map { $0 == (image.width, image.height) } == true, "another size in the header")
    }
    return 0
}

/// Start of image, and one APP1 segment.
private func jpeg(_ tiff: [UInt8]) -> [UInt8] {
    let body = Array("Exif\0\0".utf8) + tiff.prefix(65_000)
    return [0xFF, 0xD8, 0xFF, 0xE1] + bigEndian(body.count + 2, 2) + body
}

/// The signature, and one eXIf chunk.
private func png(_ tiff: [UInt8]) -> [UInt8] {
    let content = Array("eXIf".utf8) + tiff.prefix(65_000)
    return [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A] + bigEndian(content.count - 4, 4) + content
        + bigEndian(Int(crc32(content)), 4)
}

/// The container, and one EXIF chunk.
private func webp(_ tiff: [UInt8]) -> [UInt8] {
    let body = tiff.prefix(65_000)
    let chunk =
        Array("EXIF".utf8) + bigEndian(body.count, 4).reversed() + body + (body.count % 2 == 0 ? [] : [0])
    return Array("RIFF".utf8) + bigEndian(4 + chunk.count, 4).reversed() + Array("WEBP".utf8) + chunk
}

private func bigEndian(_ value: Int, _ count: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * (count - 1 - $0))) }
}

private let table: [UInt32] = (0..<256).map { byte in
    (0..<8).reduce(UInt32(byte)) { value, _ in value & 1 == 1 ? value >> 1 ^ 0xEDB8_8320 : value >> 1 }
}

private func crc32(_ bytes: [UInt8]) -> UInt32 {
    ~bytes.reduce(~UInt32(0)) { table[Int(($0 ^ UInt32($1)) & 0xFF)] ^ $0 >> 8 }
}
