import Foundation
import Support

/// Name, type and shape of a tensor to write.
package struct SafetensorsEntry: Sendable, Equatable {
    package var name: String
    package var dtype: SafetensorsDType
    package var shape: [Int]

    package init(_ name: String, dtype: SafetensorsDType = .f32, shape: [Int]) {
        (self.name, self.dtype, self.shape) = (name, dtype, shape)
    }
}

/// Writes a safetensors file of any size in one pass: first the header, then the tensors' data in header
/// order.
///
/// The data is written to a temporary file in the same folder. `finish()` checks that all tensors are
/// complete, makes the bytes durable and then renames the file. A writer that is dropped before `finish()`
/// deletes its temporary file.
package struct SafetensorsWriter: ~Copyable {
    /// The final path of the file.
    package let path: String
    private let output: Output
    private let tensors: [SafetensorsInfo]
    private var current = 0
    private var written = 0

    /// The unfinished file; deleted when it is dropped without a commit.
    private final class Output {
        let creation: FileCreation
        /// Its name until it is finished.
        let temporary: String
        let file: FileHandleDescriptor
        var isCommitted = false

        init(for path: String, _ creation: FileCreation) throws(FileError) {
            self.creation = creation
            let isFresh = creation == .fresh
            temporary = isFresh ? path : AtomicFile.temporaryPath(for: path)
            file = try FileHandleDescriptor(
                path: temporary, flags: O_WRONLY | O_CREAT | (isFresh ? O_EXCL : O_TRUNC))
        }

        deinit { if !isCommitted { unlink(temporary) } }
    }

    /// Creates a file with a header for these tensors.
    package init(
        path: String, tensors entries: [SafetensorsEntry], metadata: [String: String] = [:],
        as creation: FileCreation = .replacing
    ) throws(SafetensorsError) {
        let tensors = try Self.layOut(entries, path: path)
        let output = try Self.start(path, tensors: tensors, metadata: metadata, creation)
        (self.path, self.tensors, self.output) = (path, tensors, output)
        skipEmptyTensors()
    }

    /// Assigns consecutive byte ranges to the tensors.
    private static func layOut(
        _ entries: [SafetensorsEntry], path: String
    ) throws(SafetensorsError) -> [SafetensorsInfo] {
        var offset = 0
        var seen = Set<String>()
        var tensors: [SafetensorsInfo] = []
        for entry in entries {
            guard seen.insert(entry.name).inserted, entry.name != "__metadata__" else {
                throw SafetensorsError(
                    .tensor, path, "tensor name '\(entry.name)' is given twice or reserved")
            }
            guard entry.shape.allSatisfy({ $0 >= 0 }),
                let size = SafetensorsHeader.byteCount(shape: entry.shape, dtype: entry.dtype),
                size <= Int.max - offset
            else {
                throw SafetensorsError(
                    .tensor, path, "tensor '\(entry.name)': shape \(entry.shape) is invalid")
            }
            let range = offset..<offset + size
            tensors.append(
                SafetensorsInfo(name: entry.name, dtype: entry.dtype, shape: entry.shape, byteRange: range))
            offset += size
        }
        return tensors
    }

    /// Opens the file and writes the header.
    private static func start(
        _ path: String, tensors: [SafetensorsInfo], metadata: [String: String], _ creation: FileCreation
    ) throws(SafetensorsError) -> Output {
        let header: [UInt8]
        do throws(JSONError) {
            header = try SafetensorsHeader.encode(tensors, metadata: metadata)
        } catch {
            throw SafetensorsError(.header, path, error.description)
        }
        guard header.count - 8 <= SafetensorsHeader.maximumLength else {
            throw SafetensorsError(
                .header, path, "the header would be \(header.count) bytes, 100 MB is the limit")
        }
        let output: Output
        do throws(FileError) {
            output = try Output(for: path, creation)
        } catch {
            throw SafetensorsError(.file, path, error.detail, code: error.code)
        }
        let result = header.withUnsafeBytes { raw in
            Result { () throws(SafetensorsError) in try emit(raw, to: output, path: path) }
        }
        try result.get()
        return output
    }

    /// Appends bytes to the named tensor, which must be the next one in the header. A tensor may be appended
    /// in pieces.
    package mutating func append(_ name: String, bytes: UnsafeRawBufferPointer) throws(SafetensorsError) {
        if bytes.isEmpty { return }
        let tensor = try next(name, adding: bytes.count)
        try Self.emit(bytes, to: output, path: path)
        written += bytes.count
        if written == tensor.byteRange.count {
            current += 1
            written = 0
            skipEmptyTensors()
        }
    }

    /// Appends fp32 values to the named tensor, converted to its type (F32, F16, BF16 or F64).
    package mutating func append(_ name: String, floats: UnsafeBufferPointer<Float>) throws(SafetensorsError)
    {
        if floats.isEmpty { return }
        guard current < tensors.count else { throw unexpected(name) }
        let dtype = tensors[current].dtype
        guard dtype.isFloatingPoint else {
            throw SafetensorsError(
                .mismatch, path, "tensor '\(name)' is \(dtype.rawValue), floats were appended")
        }
        if dtype == .f32 { return try append(name, bytes: UnsafeRawBufferPointer(floats)) }
        // Convert in pieces to avoid a second copy of a large tensor.
        var rest = floats[...]
        while !rest.isEmpty {
            let piece = FloatConversion.encode(UnsafeBufferPointer(rebasing: rest.prefix(1 << 18)), as: dtype)
            rest = rest.dropFirst(1 << 18)
            let result = piece.withUnsafeBytes { raw in
                Result { () throws(SafetensorsError) in try append(name, bytes: raw) }
            }
            try result.get()
        }
    }

    /// Appends fp32 values to the named tensor; see `append(_:floats:)`.
    package mutating func append(_ name: String, floats: [Float]) throws(SafetensorsError) {
        let result = floats.withUnsafeBufferPointer { buffer in
            Result { () throws(SafetensorsError) in try append(name, floats: buffer) }
        }
        try result.get()
    }

    /// Completes the file: checks that all tensors are complete, makes the bytes durable, renames the file
    /// and, unless it was created as `.fresh`, makes the name durable.
    package consuming func finish() throws(SafetensorsError) {
        guard current == tensors.count else {
            let tensor = tensors[current]
            throw SafetensorsError(
                .incomplete, path,
                "tensor '\(tensor.name)' has \(written) of \(tensor.byteRange.count) bytes,"
                    + " the file was not written"
            )
        }
        do throws(FileError) {
            try output.file.synchronize()
            output.isCommitted = true
            if output.creation == .replacing { try AtomicFile.commit(output.temporary, to: path) }
        } catch {
            unlink(output.temporary)
            throw SafetensorsError(.file, path, error.detail, code: error.code)
        }
    }

    private static func emit(
        _ bytes: UnsafeRawBufferPointer, to output: Output, path: String
    ) throws(SafetensorsError) {
        do throws(FileError) {
            try output.file.write(bytes)
        } catch {
            throw SafetensorsError(.file, path, error.detail, code: error.code)
        }
    }

    private func next(_ name: String, adding count: Int) throws(SafetensorsError) -> SafetensorsInfo {
        guard current < tensors.count, tensors[current].name == name else { throw unexpected(name) }
        let tensor = tensors[current]
        guard count <= tensor.byteRange.count - written else {
            throw SafetensorsError(
                .mismatch, path,
                "tensor '\(name)' needs \(tensor.byteRange.count) bytes, \(written + count) were appended")
        }
        return tensor
    }

    private func unexpected(_ name: String) -> SafetensorsError {
        let expected = current < tensors.count ? "'\(tensors[current].name)'" : "nothing more"
        return SafetensorsError(.incomplete, path, "tensor '\(name)' was appended, expected \(expected)")
    }

    private mutating func skipEmptyTensors() {
        while current < tensors.count, tensors[current].byteRange.isEmpty { current += 1 }
    }
}

extension SafetensorsWriter {
    /// Writes small tensors in one call, as fp32 or another floating-point type.
    package static func write(
        _ tensors: [(name: String, shape: [Int], values: [Float])], dtype: SafetensorsDType = .f32,
        to path: String,
        metadata: [String: String] = [:]
    ) throws(SafetensorsError) {
        let entries = tensors.map { SafetensorsEntry($0.name, dtype: dtype, shape: $0.shape) }
        var writer = try SafetensorsWriter(path: path, tensors: entries, metadata: metadata)
        for tensor in tensors { try writer.append(tensor.name, floats: tensor.values) }
        try writer.finish()
    }
}
