import Foundation
import Support

/// A safetensors file. Opening it reads only the header; each tensor's bytes are read on request.
///
/// The whole header is validated before use, so a hostile or damaged file is rejected with a one-line error.
/// Truncation or a disk failure while the file is open also throws an error.
package final class SafetensorsFile: NamedTensors {
    package let path: String
    /// The tensors in the order of their bytes.
    package let tensors: [SafetensorsInfo]
    /// The `__metadata__` section.
    package let metadata: [String: String]
    /// Size of the whole file in bytes.
    package var fileSize: Int { file.size }
    /// Offset of the first tensor's bytes in the file.
    package let dataStart: Int

    private let file: PositionedFile
    private let index: [String: Int]

    /// Opens a file and checks its header.
    package convenience init(path: String) throws(SafetensorsError) {
        let file: PositionedFile
        do throws(FileError) { file = try PositionedFile(path) } catch { throw SafetensorsError(error) }
        try self.init(file)
    }

    package init(_ file: PositionedFile) throws(SafetensorsError) {
        try LargeFilePointer.check(file)
        let header = try SafetensorsHeader(head: Self.head(of: file), fileSize: file.size, path: file.path)
        self.file = file
        path = file.path
        tensors = header.tensors
        metadata = header.metadata
        dataStart = header.dataStart
        index = Dictionary(uniqueKeysWithValues: tensors.enumerated().map { ($0.element.name, $0.offset) })
    }

    /// The header with its length prefix. If the length is invalid, only the prefix, so that the header's own
    /// checks report the error.
    private static func head(of file: PositionedFile) throws(SafetensorsError) -> [UInt8] {
        do throws(FileError) {
            let head = try file.read(at: 0, count: min(8, file.size))
            let length = head.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
            guard head.count == 8, length <= UInt64(SafetensorsHeader.maximumLength) else { return head }
            return head + (try file.read(at: 8, count: min(Int(length), file.size - 8)))
        } catch {
            throw SafetensorsError(error)
        }
    }

    /// The tensors' names in the order of their bytes.
    package var names: [String] { tensors.map(\.name) }

    /// Whether a tensor of this name exists.
    package func contains(_ name: String) -> Bool { index[name] != nil }

    /// Type, shape and byte range of a tensor.
    package func info(of name: String) throws(SafetensorsError) -> SafetensorsInfo {
        if let position = index[name] { return tensors[position] }
        throw missing(name)
    }

    /// Calls `body` with a copy of the tensor's bytes as stored in the file (little-endian), valid only
    /// inside `body`.
    ///
    /// - Parameter rows: rows of the first dimension; nil for all.
    package func withBytes<Result>(
        of name: String, rows: Range<Int>? = nil, _ body: (UnsafeRawBufferPointer) throws -> Result
    ) throws -> Result {
        let range = try byteRange(of: try info(of: name), rows: rows)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: range.count, alignment: 64)
        defer { buffer.deallocate() }
        try read(range, into: buffer)
        return try body(UnsafeRawBufferPointer(buffer))
    }

    /// Rows `rows` of the first dimension as fp32: `[rows.count, shape[1], …]`. Reads only their bytes.
    package func floats(of name: String, rows: Range<Int>) throws(SafetensorsError) -> [Float] {
        let info = try info(of: name)
        let count = try byteRange(of: info, rows: rows).count / info.dtype.size
        var values = [Float](repeating: 0, count: count)
        var failure: SafetensorsError?
        values.withUnsafeMutableBufferPointer { buffer in
            do throws(SafetensorsError) { try copy(info, rows: rows, into: buffer) } catch { failure = error }
        }
        if let failure { throw failure }
        return values
    }

    /// Converts the tensor to fp32 into `destination`, whose count must equal the number of elements.
    package func copyFloats(
        of name: String, into destination: UnsafeMutableBufferPointer<Float>
    ) throws(SafetensorsError) {
        try copy(info(of: name), rows: nil, into: destination)
    }

    /// Converts rows of the first dimension to fp32 into `destination`, whose count must be `rows.count *
    /// rowCount`.
    package func copyFloats(
        of name: String, rows: Range<Int>, into destination: UnsafeMutableBufferPointer<Float>
    ) throws(SafetensorsError) {
        try copy(info(of: name), rows: rows, into: destination)
    }

    /// The tensor as integers, from any integer type of up to 63 bits or BOOL.
    package func integers(of name: String) throws(SafetensorsError) -> [Int] {
        let info = try info(of: name)
        guard [.bool, .u8, .i8, .i16, .u16, .i32, .u32, .i64].contains(info.dtype) else {
            throw mismatch(info, "expected whole numbers of up to 63 bits")
        }
        let range = try byteRange(of: info, rows: nil)
        let bytes: [UInt8]
        do throws(FileError) {
            bytes = try file.read(at: range.lowerBound, count: range.count)
        } catch {
            throw SafetensorsError(error)
        }
        func load<Source: FixedWidthInteger>(_ type: Source.Type) -> [Int] {
            bytes.withUnsafeBytes { bytes in
                (0..<info.count).map {
                    Int(
                        truncatingIfNeeded: Source(
                            littleEndian:
                                bytes.loadUnaligned(fromByteOffset: $0 * info.dtype.size, as: type)))
                }
            }
        }
        switch info.dtype {
        case .i8: return load(Int8.self)
        case .i16: return load(Int16.self)
        case .u16: return load(UInt16.self)
        case .i32: return load(Int32.self)
        case .u32: return load(UInt32.self)
        case .i64: return load(Int64.self)
        default: return load(UInt8.self)
        }
    }

    /// Throws if the tensor's shape is not the expected one.
    package func expectShape(_ shape: [Int], of name: String) throws(SafetensorsError) {
        let info = try info(of: name)
        if info.shape != shape { throw mismatch(info, "expected shape \(shape)") }
    }

    /// Asks the kernel to read the tensor's bytes ahead, or the whole file if `name` is nil.
    package func prefetch(_ name: String? = nil) throws(SafetensorsError) {
        file.prefetch(
            try name.map { name throws(SafetensorsError) in
                try byteRange(of: info(of: name), rows: nil)
            } ?? 0..<file.size)
    }
}

extension SafetensorsFile {
    /// The byte range in the file of a tensor, or of rows of its first dimension.
    private func byteRange(
        of info: SafetensorsInfo, rows: Range<Int>?
    ) throws(SafetensorsError) -> Range<Int> {
        let start = dataStart + info.byteRange.lowerBound
        guard let rows else { return start..<start + info.byteRange.count }
        guard rows.lowerBound >= 0, rows.upperBound <= info.shape.first ?? 0 else {
            throw mismatch(info, "rows \(rows.lowerBound)..<\(rows.upperBound) are out of range")
        }
        let stride = info.rowCount * info.dtype.size
        return start + rows.lowerBound * stride..<start + rows.upperBound * stride
    }

    private func read(
        _ range: Range<Int>, into buffer: UnsafeMutableRawBufferPointer
    ) throws(SafetensorsError) {
        do throws(FileError) {
            try file.read(at: range.lowerBound, into: buffer)
        } catch {
            throw SafetensorsError(error)
        }
    }

    private func copy(
        _ info: SafetensorsInfo, rows: Range<Int>?, into destination: UnsafeMutableBufferPointer<Float>
    ) throws(SafetensorsError) {
        let range = try byteRange(of: info, rows: rows)
        try checkFloats(info, range.count / info.dtype.size, fit: destination.count)
        do throws(FileError) {
            try file.readFloats(at: range.lowerBound, as: info.dtype, into: destination)
        } catch {
            throw SafetensorsError(error)
        }
    }
}
