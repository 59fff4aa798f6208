import CZlib
import Foundation
import Support

/// Why a statistics file cannot be used; the message is one line.
package struct StatisticsError: ReportableError, Equatable {
    package let message: String
    package init(_ path: String, _ detail: String) { message = "\(path): \(detail)" }
    package var exitStatus: Int32 { ExitStatus.refused }
}

/// An .npz file: a zip archive of stored or deflated .npy files, as written by numpy's `savez` and
/// `savez_compressed`.
///
/// All offsets and sizes are checked against the file size before use. Zip64 is supported in local headers,
/// where numpy writes it; archives of 4 GB or more are rejected.
///
/// - Source: PKWARE's APPNOTE 6.3.10, sections 4.3.7, 4.3.12 and 4.3.16.
package struct NumpyArchive {
    let path: String
    private let bytes: [UInt8]
    private var entries: [String: Entry] = [:]

    private struct Entry {
        let method: Int
        let checksum: Int
        let compressed: Int
        let size: Int
        let header: Int
    }

    /// Limit in bytes on the archive and on each array in it. Statistics of 8,192 features take half of it.
    private static let maximumBytes = 1 << 30

    package init(_ path: String) throws {
        self.path = path
        bytes = try readWholeFile(path, limit: Self.maximumBytes)
        try readDirectory()
    }

    /// Reads the central directory. Its end record is at the end of the file, followed only by an optional
    /// comment.
    private mutating func readDirectory() throws {
        let earliest = max(0, bytes.count - 22 - 65535)
        let end = stride(from: bytes.count - 22, through: earliest, by: -1).first {
            number($0, 4) == 0x0605_4B50
        }
        guard let end, let count = number(end + 10, 2), var at = number(end + 16, 4) else {
            throw StatisticsError(path, "is no zip archive, expected an .npz file of numpy's")
        }
        for _ in 0..<count {
            guard number(at, 4) == 0x0201_4B50, let method = number(at + 10, 2),
                let checksum = number(at + 16, 4), let compressed = number(at + 20, 4),
                let size = number(at + 24, 4), let nameLength = number(at + 28, 2),
                let extra = number(at + 30, 2), let comment = number(at + 32, 2),
                let header = number(at + 42, 4), at + 46 + nameLength <= bytes.count
            else { throw damaged("its directory") }
            let name = String(decoding: bytes[(at + 46)..<(at + 46 + nameLength)], as: UTF8.self)
            entries[name] = Entry(
                method: method, checksum: checksum, compressed: compressed, size: size, header: header)
            at += 46 + nameLength + extra + comment
        }
    }

    /// Names of the arrays.
    var names: [String] {
        entries.keys.filter { $0.hasSuffix(".npy") }.map { String($0.dropLast(4)) }.sorted()
    }

    /// An array's shape and its values in row-major order. A matrix in Fortran order is returned transposed.
    package func array(_ name: String) throws -> (shape: [Int], values: [Double]) {
        guard let entry = entries["\(name).npy"] else {
            throw StatisticsError(
                path,
                "has no array '\(name)', but \(names.isEmpty ? "none" : names.joined(separator: ", ").oneLine()); "
                    + "expected mu and sigma, as pytorch-fid and clean-fid save them")
        }
        return try NumpyArray(content(name, entry), "\(path): \(name)").doubles()
    }

    private func content(_ name: String, _ entry: Entry) throws -> [UInt8] {
        guard entry.size <= Self.maximumBytes, number(entry.header, 4) == 0x0403_4B50,
            let nameLength = number(entry.header + 26, 2), let extra = number(entry.header + 28, 2)
        else { throw damaged(name) }
        let start = entry.header + 30 + nameLength + extra
        guard start + entry.compressed <= bytes.count else { throw damaged(name) }
        let packed = bytes[start..<start + entry.compressed]
        let content: [UInt8]
        switch entry.method {
        case 0: content = Array(packed)
        case 8: content = inflate(packed, size: entry.size)
        default:
            throw StatisticsError(
                path, "\(name) is compressed by method \(entry.method), expected stored or deflated")
        }
        let checksum = content.withUnsafeBytes {
            crc32_z(0, $0.baseAddress?.assumingMemoryBound(to: UInt8.self), $0.count)
        }
        guard content.count == entry.size, Int(checksum) == entry.checksum else { throw damaged(name) }
        return content
    }

    /// Inflates raw deflate data; returns the bytes before the first error if the data is damaged.
    private func inflate(_ packed: ArraySlice<UInt8>, size: Int) -> [UInt8] {
        var input = Array(packed)
        return [UInt8](unsafeUninitializedCapacity: max(1, size)) { output, count in
            count = 0
            var stream = z_stream()
            // Negative window bits select raw deflate without a zlib header.
            guard inflateInit2_(&stream, -15, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size)) == Z_OK else {
                return
            }
            defer { inflateEnd(&stream) }
            input.withUnsafeMutableBufferPointer { input in
                stream.next_in = input.baseAddress
                stream.avail_in = UInt32(input.count)
                stream.next_out = output.baseAddress
                stream.avail_out = UInt32(size)
                let status = CZlib.inflate(&stream, Z_FINISH)
                if status == Z_STREAM_END || status == Z_BUF_ERROR { count = size - Int(stream.avail_out) }
            }
        }
    }

    private func damaged(_ what: String) -> StatisticsError {
        StatisticsError(path, "\(what.oneLine()) is damaged or cut short; save or fetch the file again")
    }

    /// Reads a little-endian integer of `length` bytes; nil if it extends beyond the end.
    private func number(_ offset: Int, _ length: Int) -> Int? {
        guard offset >= 0, offset + length <= bytes.count else { return nil }
        return (0..<length).reduce(0) { $0 | Int(bytes[offset + $1]) << (8 * $1) }
    }
}

/// An fp32 or fp64 array of an .npy file.
///
/// - Source: numpy.lib.format, versions 1.0 to 3.0.
struct NumpyArray {
    private let bytes: [UInt8]
    /// The name in error messages.
    private let name: String

    init(_ bytes: [UInt8], _ name: String) { (self.bytes, self.name) = (bytes, name) }

    func doubles() throws -> (shape: [Int], values: [Double]) {
        let isLong = bytes.count > 6 && bytes[6] >= 2
        let prefix = isLong ? 12 : 10
        guard bytes.count >= prefix, bytes.starts(with: [0x93] + Array("NUMPY".utf8)),
            (1...3).contains(bytes[6])
        else { throw StatisticsError(name, "is no .npy array") }
        let length = (8..<prefix).reduce(0) { $0 | Int(bytes[$1]) << (8 * ($1 - 8)) }
        guard length <= bytes.count - prefix else { throw StatisticsError(name, "is cut short") }
        let header = String(decoding: bytes[prefix..<prefix + length], as: UTF8.self)
        let size: Int
        if header.contains("'<f8'") {
            size = 8
        } else if header.contains("'<f4'") {
            size = 4
        } else {
            throw StatisticsError(name, "expected little-endian fp32 or fp64, found \(header.oneLine())")
        }
        guard let open = header.firstIndex(of: "("), let close = header[open...].firstIndex(of: ")") else {
            throw StatisticsError(name, "has no shape: \(header.oneLine())")
        }
        let fields = header[header.index(after: open)..<close].split(separator: ",")
        let shape = fields.compactMap { Int($0.trimmingCharacters(in: .whitespaces)) }
        var count = 1
        for side in shape {
            let (product, overflows) = count.multipliedReportingOverflow(by: side)
            guard side >= 0, !overflows, product <= bytes.count else {
                throw StatisticsError(name, "its shape \(shape) is larger than its \(bytes.count) bytes")
            }
            count = product
        }
        let start = prefix + length
        guard shape.count == fields.count, count * size == bytes.count - start else {
            throw StatisticsError(name, "its shape \(shape) does not fit its \(bytes.count) bytes")
        }
        let values = bytes.withUnsafeBytes { raw in
            (0..<count).map { index in
                size == 8
                    ? Double(
                        bitPattern: UInt64(
                            littleEndian: raw.loadUnaligned(
                                fromByteOffset: start + 8 * index, as: UInt64.self)))
                    : Double(
                        Float(
                            bitPattern: UInt32(
                                littleEndian: raw.loadUnaligned(
                                    fromByteOffset: start + 4 * index, as: UInt32.self))))
            }
        }
        return (shape, values)
    }
}
