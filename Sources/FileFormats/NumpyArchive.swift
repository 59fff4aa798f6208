import Foundation
import Support

/// Why a statistics file cannot be used; the message is one line.
package struct StatisticsError: ReportableError, Equatable {
    package let message: String
    package init(_ path: String, _ detail: String) { message = "\(path): \(detail)" }
    package var exitStatus: Int32 { ExitStatus.refused }
}

/// An .npz file: a zip archive of .npy files, as written by numpy's `savez` and `savez_compressed`.
package struct NumpyArchive {
    let path: String
    private let bytes: [UInt8]
    /// Names of the arrays.
    private var names: [String] = []

    /// Limit in bytes on the archive and on each array in it. Statistics of 8,192 features take half of it.
    private static let maximumBytes = 1 << 30

    package init(_ path: String) throws {
        self.path = path
        bytes = try readWholeFile(path, limit: Self.maximumBytes)
        guard bytes.starts(with: [0x50, 0x4B]) else {
            throw StatisticsError(path, "is not a zip archive, expected an .npz file from NumPy")
        }
        let reader = try open()
        while let member = try readable("its directory", reader.next) {
            if member.name.hasSuffix(".npy") { names.append(String(member.name.dropLast(4))) }
        }
        names.sort()
    }

    /// An array's shape and its values in row-major order. A matrix in Fortran order is returned transposed.
    package func array(_ name: String) throws -> (shape: [Int], values: [Double]) {
        let reader = try open()
        while let member = try readable("its directory", reader.next) {
            guard member.name == "\(name).npy" else { continue }
            let content = try readable(name) { try reader.data(limit: Self.maximumBytes) }
            return try NumpyArray(content, "\(path): \(name)").doubles()
        }
        throw StatisticsError(
            path,
            "has no array '\(name)', but \(names.isEmpty ? "none" : names.joined(separator: ", ").oneLine()); "
                + "expected mu and sigma, as pytorch-fid and clean-fid save them")
    }

    private func open() throws -> ArchiveReader {
        try readable("its directory") {
            try ArchiveReader(.zip, size: bytes.count) { [bytes] in Array(bytes[$0..<$0 + $1]) }
        }
    }

    private func readable<Value>(_ what: String, _ body: () throws -> Value) throws -> Value {
        do {
            return try body()
        } catch let error as ArchiveError {
            throw StatisticsError(
                path,
                "\(what) is damaged or truncated (\(error.detail.oneLine())); save or download the file again"
            )
        }
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
        else { throw StatisticsError(name, "is not an .npy array") }
        let length = (8..<prefix).reduce(0) { $0 | Int(bytes[$1]) << (8 * ($1 - 8)) }
        guard length <= bytes.count - prefix else { throw StatisticsError(name, "is truncated") }
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
            throw StatisticsError(name, "its shape \(shape) does not match its \(bytes.count) bytes")
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
