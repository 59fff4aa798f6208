import Support

/// The framing of TensorFlow's record files: length (8 bytes), masked CRC-32C of the length (4), data, masked
/// CRC-32C of the data (4); all integers are little-endian.
///
/// Source: tensorflow/core/lib/io/record_writer.h and tensorflow/core/lib/hash/crc32c.h.
package enum TFRecord {
    private static let headerSize = 12

    package static func frame(_ data: [UInt8]) -> [UInt8] {
        let length = littleEndian(UInt64(data.count))
        return length + littleEndian(maskedChecksum(length)) + data + littleEndian(maskedChecksum(data))
    }

    /// Reads the record that begins at `offset`.
    ///
    /// - Returns: the data and the offset after the record; nil at the end of the file, or if the record is
    ///   truncated or damaged.
    package static func read(
        _ file: AppendedFile, at offset: Int
    ) throws(FileError) -> (data: [UInt8], end: Int)? {
        let header = try file.read(at: offset, count: headerSize)
        guard header.count == headerSize, checksum(of: header, at: 8) == maskedChecksum(Array(header[..<8]))
        else { return nil }
        let length: UInt64 = integer(header, at: 0)
        // Check the length before allocating that many bytes.
        guard length <= UInt64(max(0, file.size - offset - headerSize - 4)) else { return nil }
        let count = Int(length)
        let body = try file.read(at: offset + headerSize, count: count + 4)
        let data = Array(body[..<count])
        guard checksum(of: body, at: count) == maskedChecksum(data) else { return nil }
        return (data, offset + headerSize + count + 4)
    }

    /// Checksums are stored rotated and with a constant added, because the CRC of data that contains its own
    /// CRCs is weak.
    private static func maskedChecksum(_ bytes: [UInt8]) -> UInt32 {
        let crc = CRC32C.of(bytes).value
        return (crc >> 15 | crc << 17) &+ 0xA282_EAD8
    }

    private static func checksum(of bytes: [UInt8], at offset: Int) -> UInt32 { integer(bytes, at: offset) }
}

/// The bytes of an integer in little-endian order.
func littleEndian<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
    withUnsafeBytes(of: value.littleEndian) { Array($0) }
}

/// The little-endian integer at `offset`.
func integer<T: FixedWidthInteger>(_ bytes: [UInt8], at offset: Int) -> T {
    bytes.withUnsafeBytes { T(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: T.self)) }
}
