import Support

/// Tensors that are read by name: a file, a model in several files, or a part of a file under other names.
package protocol NamedTensors: Sendable {
    /// The file, index or folder, for messages.
    var path: String { get }
    var names: [String] { get }
    /// Type and shape of a tensor.
    func info(of name: String) throws(SafetensorsError) -> SafetensorsInfo
    /// Converts the tensor to fp32 in row-major order into `destination`, whose count must equal the number
    /// of elements.
    func copyFloats(
        of name: String, into destination: UnsafeMutableBufferPointer<Float>
    ) throws(SafetensorsError)
}

extension NamedTensors {
    /// The tensor as fp32 in row-major order, converted from F16, BF16 or F64 if necessary.
    package func floats(of name: String) throws(SafetensorsError) -> [Float] {
        let count = try info(of: name).count
        var failure: SafetensorsError?
        let result = [Float](unsafeUninitializedCapacity: count) { buffer, initialized in
            do throws(SafetensorsError) {
                try copyFloats(of: name, into: UnsafeMutableBufferPointer(rebasing: buffer[..<count]))
                initialized = count
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        return result
    }

    /// The error for a name that does not exist.
    package func missing(_ name: String) -> SafetensorsError {
        let hint = nearestName(to: name, among: names).map { "; did you mean '\($0)'?" } ?? ""
        return SafetensorsError(.missing, path, "has no tensor '\(name)'\(hint)")
    }

    /// The error for a tensor of another type or shape than expected.
    package func mismatch(_ info: SafetensorsInfo, _ what: String) -> SafetensorsError {
        SafetensorsError(
            .mismatch, path, "tensor '\(info.name)' is \(info.dtype.rawValue) \(info.shapeText): \(what)")
    }

    /// Throws if `elements` elements of a tensor cannot be converted to fp32 in a buffer of `count`.
    func checkFloats(_ info: SafetensorsInfo, _ elements: Int, fit count: Int) throws(SafetensorsError) {
        guard count == elements else {
            throw mismatch(info, "\(elements) elements do not fit a buffer of \(count)")
        }
        guard info.dtype.isFloatingPoint else { throw mismatch(info, "expected F32, F16, BF16 or F64") }
    }
}

extension PositionedFile {
    /// Converts contiguous elements to fp32: F32 directly into `destination`, other types through a small
    /// buffer.
    ///
    /// - Parameter offset: of the first element in the file; the count is that of `destination`.
    func readFloats(
        at offset: Int, as dtype: SafetensorsDType, into destination: UnsafeMutableBufferPointer<Float>
    ) throws(FileError) {
        if dtype == .f32 { return try read(at: offset, into: UnsafeMutableRawBufferPointer(destination)) }
        let count = destination.count
        let blockElements = 1 << 18
        let buffer = UnsafeMutableRawBufferPointer.allocate(
            byteCount: min(count, blockElements) * dtype.size, alignment: 64)
        defer { buffer.deallocate() }
        for start in stride(from: 0, to: count, by: blockElements) {
            let elements = min(blockElements, count - start)
            let bytes = UnsafeMutableRawBufferPointer(rebasing: buffer[..<(elements * dtype.size)])
            try read(at: offset + start * dtype.size, into: bytes)
            FloatConversion.decode(
                UnsafeRawBufferPointer(bytes), as: dtype,
                into: UnsafeMutableBufferPointer(rebasing: destination[start..<start + elements]))
        }
    }
}
