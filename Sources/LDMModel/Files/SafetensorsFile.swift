import Foundation

/// A safetensors file, mapped into memory: opening it reads the header alone, and a tensor's bytes come from
/// the disk when they are first touched.
///
/// Everything in the header is checked before anything is used, so a hostile or damaged file is refused with
/// one line. The file must not be cut short by others while it is open: the system would end the process
/// (SIGBUS).
// The mapping is read-only and lives as long as the object; all other members are immutable.
public final class SafetensorsFile: @unchecked Sendable {
    public let path: String
    /// The tensors in the order of their bytes.
    public let tensors: [SafetensorsInfo]
    /// The `__metadata__` section.
    public let metadata: [String: String]
    /// Size of the whole file in bytes.
    public var fileSize: Int { mapping.count }

    private let mapping: UnsafeRawBufferPointer
    private let dataStart: Int
    private let index: [String: Int]

    /// Opens, maps and checks a file.
    public init(path: String) throws(SafetensorsError) {
        self.path = path
        mapping = try Self.map(path)
        let header: SafetensorsHeader
        do {
            header = try SafetensorsHeader(mapping, fileSize: mapping.count, path: path)
        } catch {
            // deinit does not run for an object that was never made.
            Self.unmap(mapping)
            throw error
        }
        tensors = header.tensors
        metadata = header.metadata
        dataStart = header.dataStart
        index = Dictionary(uniqueKeysWithValues: tensors.enumerated().map { ($0.element.name, $0.offset) })
    }

    deinit { Self.unmap(mapping) }

    /// The tensors' names in the order of their bytes.
    public var names: [String] { tensors.map(\.name) }

    /// Whether there is a tensor of this name.
    public func contains(_ name: String) -> Bool { index[name] != nil }

    /// Type, shape and place of a tensor.
    public func info(of name: String) throws(SafetensorsError) -> SafetensorsInfo {
        if let position = index[name] { return tensors[position] }
        let hint = nearestName(to: name, among: names).map { "; did you mean '\($0)'?" } ?? ""
        throw SafetensorsError(.missing, path, "has no tensor '\(name)'\(hint)")
    }

    /// Calls `body` with the tensor's bytes as they lie in the file (little-endian, not necessarily aligned).
    /// The bytes are valid only inside `body`.
    public func withBytes<Result>(
        of name: String, _ body: (UnsafeRawBufferPointer) throws -> Result
    ) throws -> Result {
        try body(bytes(of: try info(of: name)))
    }

    /// The tensor as fp32, converted from F16, BF16 or F64 where need be, in row-major order.
    public func floats(of name: String) throws(SafetensorsError) -> [Float] {
        let info = try info(of: name)
        return try floats(of: info, rows: nil)
    }

    /// Rows `rows` of the first dimension as fp32: `[rows.count, shape[1], …]`. Touches only their pages.
    public func floats(of name: String, rows: Range<Int>) throws(SafetensorsError) -> [Float] {
        let info = try info(of: name)
        return try floats(of: info, rows: rows)
    }

    /// Converts the tensor to fp32 into `destination`, which must have room for exactly its elements.
    public func copyFloats(
        of name: String, into destination: UnsafeMutableBufferPointer<Float>
    ) throws(SafetensorsError) {
        try copy(bytes(of: try info(of: name)), of: try info(of: name), into: destination)
    }

    /// Converts rows of the first dimension to fp32 into `destination`, of exactly `rows.count * rowCount`
    /// elements.
    public func copyFloats(
        of name: String, rows: Range<Int>, into destination: UnsafeMutableBufferPointer<Float>
    ) throws(SafetensorsError) {
        let info = try info(of: name)
        try copy(try bytes(of: info, rows: rows), of: info, into: destination)
    }

    /// The tensor as whole numbers, from any integer type or BOOL.
    public func integers(of name: String) throws(SafetensorsError) -> [Int] {
        let info = try info(of: name)
        let bytes = bytes(of: info)
        func load<Source: FixedWidthInteger>(_ type: Source.Type) -> [Int] {
            (0..<info.count).map {
                Int(
                    truncatingIfNeeded: Source(
                        littleEndian:
                            bytes.loadUnaligned(fromByteOffset: $0 * info.dtype.size, as: type)))
            }
        }
        switch info.dtype {
        case .bool, .u8: return load(UInt8.self)
        case .i8: return load(Int8.self)
        case .i16: return load(Int16.self)
        case .u16: return load(UInt16.self)
        case .i32: return load(Int32.self)
        case .u32: return load(UInt32.self)
        case .i64: return load(Int64.self)
        default: throw mismatch(info, "expected whole numbers of up to 63 bits")
        }
    }

    /// Checks that a tensor has the shape that a model wants.
    public func expectShape(_ shape: [Int], of name: String) throws(SafetensorsError) {
        let info = try info(of: name)
        if info.shape != shape { throw mismatch(info, "expected shape \(shape)") }
    }

    /// Asks the system to read the tensor's bytes ahead (all of the file where no name is given).
    public func prefetch(_ name: String? = nil) throws(SafetensorsError) {
        guard let base = mapping.baseAddress else { return }
        var range = 0..<mapping.count
        if let name {
            let bytes = try info(of: name).byteRange
            range = dataStart + bytes.lowerBound..<dataStart + bytes.upperBound
        }
        let page = Int(sysconf(Int32(_SC_PAGESIZE)))
        let start = range.lowerBound / page * page
        // Advice only: failure changes nothing.
        _ = madvise(UnsafeMutableRawPointer(mutating: base) + start, range.upperBound - start, MADV_WILLNEED)
    }
}

extension SafetensorsFile {
    private func bytes(of info: SafetensorsInfo) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(
            rebasing: mapping[dataStart + info.byteRange.lowerBound..<dataStart + info.byteRange.upperBound])
    }

    private func bytes(of info: SafetensorsInfo, rows: Range<Int>) throws(SafetensorsError)
        -> UnsafeRawBufferPointer
    {
        let available = info.shape.first ?? 0
        guard rows.lowerBound >= 0, rows.upperBound <= available else {
            throw mismatch(info, "rows \(rows.lowerBound)..<\(rows.upperBound) are not all there")
        }
        let stride = info.rowCount * info.dtype.size
        let all = bytes(of: info)
        return UnsafeRawBufferPointer(rebasing: all[rows.lowerBound * stride..<rows.upperBound * stride])
    }

    private func floats(of info: SafetensorsInfo, rows: Range<Int>?) throws(SafetensorsError) -> [Float] {
        let source =
            try rows.map { rows throws(SafetensorsError) in try bytes(of: info, rows: rows) }
            ?? bytes(of: info)
        var failure: SafetensorsError?
        let result = [Float](unsafeUninitializedCapacity: source.count / info.dtype.size) { buffer, count in
            let destination = UnsafeMutableBufferPointer(rebasing: buffer[0..<source.count / info.dtype.size])
            do throws(SafetensorsError) {
                try copy(source, of: info, into: destination)
                count = destination.count
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        return result
    }

    private func copy(
        _ source: UnsafeRawBufferPointer, of info: SafetensorsInfo,
        into destination: UnsafeMutableBufferPointer<Float>
    ) throws(SafetensorsError) {
        let count = source.count / info.dtype.size
        guard destination.count == count else {
            throw mismatch(info, "\(count) elements do not fit a buffer of \(destination.count)")
        }
        guard info.dtype.isFloatingPoint else { throw mismatch(info, "expected F32, F16, BF16 or F64") }
        FloatConversion.decode(source, as: info.dtype, into: destination)
        StorageProgress.advance()
    }

    private func mismatch(_ info: SafetensorsInfo, _ what: String) -> SafetensorsError {
        SafetensorsError(
            .mismatch, path, "tensor '\(info.name)' is \(info.dtype.rawValue) \(info.shapeText): \(what)")
    }

    private static func map(_ path: String) throws(SafetensorsError) -> UnsafeRawBufferPointer {
        do throws(FileError) {
            let file = try FileHandleDescriptor(path: path, flags: O_RDONLY)
            let size = try file.regularFileSize()
            // mmap refuses zero bytes; the header check then says that the file is too short.
            if size == 0 { return UnsafeRawBufferPointer(start: nil, count: 0) }
            guard let base = mmap(nil, size, PROT_READ, MAP_PRIVATE, file.descriptor, 0), base != MAP_FAILED
            else {
                throw FileError.system(path, "cannot be mapped into memory")
            }
            return UnsafeRawBufferPointer(start: base, count: size)
        } catch {
            throw SafetensorsError(error)
        }
    }

    private static func unmap(_ mapping: UnsafeRawBufferPointer) {
        if let base = mapping.baseAddress { munmap(UnsafeMutableRawPointer(mutating: base), mapping.count) }
    }
}
