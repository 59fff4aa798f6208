import Support

/// The framing of TensorFlow's record files: length (8 bytes), its checksum (4), data, their checksum (4); numbers in
/// little-endian order, checksums masked CRC-32C.
///
/// Source: tensorflow/core/lib/io/record_writer.h and tensorflow/core/lib/hash/crc32c.h.
package enum TFRecord {
    private static let headerSize = 12

    package static func frame(_ data: [UInt8]) -> [UInt8] {
        let length = littleEndian(UInt64(data.count))
        return length + littleEndian(maskedChecksum(length)) + data + littleEndian(maskedChecksum(data))
    }

    /// The record that begins at `offset`.
    ///
    /// - Returns: its data and the offset behind it; nil at the end of the file, and where the file is torn or damaged.
    package static func read(
        _ file: AppendedFile, at offset: Int
    ) throws(FileError) -> (data: [UInt8], end: Int)? {
        let header = try file.read(at: offset, count: headerSize)
        guard header.count == headerSize, checksum(of: header, at: 8) == maskedChecksum(Array(header[..<8]))
        else { return nil }
        let length: UInt64 = integer(header, at: 0)
        // Checked before anything of that size is allocated.
        guard length <= UInt64(max(0, file.size - offset - headerSize - 4)) else { return nil }
        let count = Int(length)
        let body = try file.read(at: offset + headerSize, count: count + 4)
        let data = Array(body[..<count])
        guard checksum(of: body, at: count) == maskedChecksum(data) else { return nil }
        return (data, offset + headerSize + count + 4)
    }

    /// A checksum is stored rotated and with a constant added, since checksums of data that hold checksums are weak.
    private static func maskedChecksum(_ bytes: [UInt8]) -> UInt32 {
        let crc = CRC32C.of(bytes).value
        return (crc >> 15 | crc << 17) &+ 0xA282_EAD8
    }

    private static func checksum(of bytes: [UInt8], at offset: Int) -> UInt32 { integer(bytes, at: offset) }
}

/// The bytes of an integer, the least first.
func littleEndian<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
    withUnsafeBytes(of: value.littleEndian) { Array($0) }
}

/// The integer whose bytes lie at `offset`, the least first.
func integer<T: FixedWidthInteger>(_ bytes: [UInt8], at offset: Int) -> T {
    bytes.withUnsafeBytes { T(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: T.self)) }
}
