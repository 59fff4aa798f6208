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
    private let zip: ZipFile
    /// The arrays by their names.
    private let arrays: [String: ZipFile.Member]

    /// Limit in bytes on the archive and on each array in it. Statistics of 8,192 features take half of it.
    private static let maximumBytes = 1 << 30

    package init(_ path: String) throws {
        self.path = path
        let file = try PositionedFile(path)
        guard try ZipFile.recognizes(file.read(at: 0, count: min(4, file.size))) else {
            throw StatisticsError(path, "is not a zip archive, expected an .npz file from NumPy")
        }
        zip = try Self.readable(path, "its directory") {
            try ZipFile(size: file.size) { try file.read(at: $0, count: $1) }
        }
        arrays = Dictionary(
            zip.members.filter { $0.name.hasSuffix(".npy") }.map { (String($0.name.dropLast(4)), $0) },
            uniquingKeysWith: { $1 })
    }

    /// Whether it has the mean and the covariance of features, rather than images.
    package var isStatistics: Bool { arrays["mu"] != nil && arrays["sigma"] != nil }

    /// An array's shape and its values in row-major order. A matrix in Fortran order is returned transposed.
    package func array(_ name: String) throws -> (shape: [Int], values: [Double]) {
        guard let member = arrays[name] else {
            let names = arrays.keys.sorted()
            throw StatisticsError(
                path,
                "has no array '\(name)', but \(names.isEmpty ? "none" : names.joined(separator: ", ").oneLine()); "
                    + "expected mu and sigma, as pytorch-fid and clean-fid save them")
        }
        let content = try Self.readable(path, name) {
            guard member.size <= Self.maximumBytes else {
                throw ArchiveError(detail: "a member of more than \(Self.maximumBytes) bytes")
            }
            return try zip.content(of: member)
        }
        return try NumpyArray(content, "\(path): \(name)").doubles()
    }

    private static func readable<Value>(
        _ path: String, _ what: String, _ body: () throws -> Value
    ) throws -> Value {
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
struct NumpyArray {
    private let bytes: [UInt8]
    /// The name in error messages.
    private let name: String

    init(_ bytes: [UInt8], _ name: String) { (self.bytes, self.name) = (bytes, name) }

    func doubles() throws -> (shape: [Int], values: [Double]) {
        let header = try NumpyHeader(bytes, name)
        let size: Int
        switch header.type {
        case "<f8": size = 8
        case "<f4": size = 4
        default:
            throw StatisticsError(
                name, "expected little-endian fp32 or fp64, found \(header.text.oneLine())")
        }
        let start = header.size
        guard let count = header.count(limit: bytes.count), count * size == bytes.count - start else {
            throw StatisticsError(name, "its shape \(header.shape) does not match its \(bytes.count) bytes")
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
        return (header.shape, values)
    }
}
