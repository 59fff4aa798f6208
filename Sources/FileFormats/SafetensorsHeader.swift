import Support

/// The header of a safetensors file: 8 bytes of length, then JSON of that length, then the tensors' bytes.
///
/// Source: https://github.com/huggingface/safetensors (format section). The checks include the official ones
/// and further ones.
package struct SafetensorsHeader {
    /// Tensors in file order.
    package var tensors: [SafetensorsInfo]
    package var metadata: [String: String]
    /// Offset of the first tensor byte in the file.
    package var dataStart: Int

    /// The official limit on the header in bytes, 100 MB.
    package static let maximumLength = 100_000_000
    private static let metadataKey = "__metadata__"

    /// Parses and validates the beginning of a file.
    ///
    /// - Parameters:
    ///   - bytes: the beginning of the file: at least the length prefix and the header.
    ///   - fileSize: size of the whole file in bytes.
    package init(head bytes: [UInt8], fileSize: Int, path: String) throws(SafetensorsError) {
        let result = bytes.withUnsafeBytes { raw in
            Result { () throws(SafetensorsError) in
                try SafetensorsHeader(raw, fileSize: fileSize, path: path)
            }
        }
        self = try result.get()
    }

    init(_ bytes: UnsafeRawBufferPointer, fileSize: Int, path: String) throws(SafetensorsError) {
        guard bytes.count >= 8 else {
            throw SafetensorsError(.header, path, "is \(bytes.count) bytes, too short for a safetensors file")
        }
        let length = UInt64(littleEndian: bytes.loadUnaligned(as: UInt64.self))
        guard length <= UInt64(Self.maximumLength) else {
            throw SafetensorsError(
                .header, path,
                "header length is \(length), expected \(Self.maximumLength) at most; not a safetensors file?")
        }
        guard Int(length) <= bytes.count - 8 else {
            throw SafetensorsError(
                .header, path,
                "header length is \(length), but the file has only \(bytes.count - 8) bytes after it;"
                    + " truncated?")
        }
        dataStart = 8 + Int(length)
        let dataLength = fileSize - dataStart
        let json: JSONValue
        do {
            // name -> {dtype, shape: [..]}: a valid header has at most three levels.
            json = try JSONValue(parsing: Array(bytes[8..<dataStart])[...], maximumDepth: 4)
        } catch {
            throw SafetensorsError(.header, path, "header: \(error)")
        }
        guard case .object(let table) = json else {
            throw SafetensorsError(.header, path, "header is \(json.kind), expected an object")
        }
        metadata = [:]
        tensors = []
        tensors.reserveCapacity(table.count)
        for (name, value) in table.members {
            if name == Self.metadataKey {
                metadata = try Self.metadata(value, path: path)
            } else {
                tensors.append(try Self.tensor(name, value, path: path))
            }
        }
        tensors.sort {
            ($0.byteRange.lowerBound, $0.byteRange.upperBound) < (
                $1.byteRange.lowerBound, $1.byteRange.upperBound
            )
        }
        var end = 0
        for tensor in tensors {
            let range = tensor.byteRange
            if range.upperBound > dataLength {
                throw SafetensorsError(
                    .layout, path,
                    "tensor '\(tensor.name)' ends at byte \(range.upperBound) of the data, but the file"
                        + " has \(dataLength); truncated?")
            }
            if range.lowerBound != end {
                let what = range.lowerBound < end ? "overlaps the one before it" : "leaves a gap before it"
                throw SafetensorsError(
                    .layout, path,
                    "tensor '\(tensor.name)' starts at byte \(range.lowerBound), expected \(end): it \(what)")
            }
            end = range.upperBound
        }
        if end != dataLength {
            throw SafetensorsError(
                .layout, path, "the tensors end at byte \(end) of the data, but the file has \(dataLength)")
        }
    }

    private static func metadata(_ value: JSONValue, path: String) throws(SafetensorsError) -> [String:
        String]
    {
        guard case .object(let object) = value else {
            throw SafetensorsError(.header, path, "\(metadataKey) is \(value.kind), expected an object")
        }
        var metadata: [String: String] = [:]
        for (key, value) in object.members {
            guard case .string(let text) = value else {
                throw SafetensorsError(
                    .header, path, "\(metadataKey).\(key) is \(value.kind), expected a string")
            }
            metadata[key] = text
        }
        return metadata
    }

    private static func tensor(
        _ name: String, _ value: JSONValue, path: String
    ) throws(SafetensorsError) -> SafetensorsInfo {
        func fail(_ what: String) -> SafetensorsError {
            SafetensorsError(.tensor, path, "tensor '\(name)': \(what)")
        }
        guard case .object(let object) = value else { throw fail("is \(value.kind), expected an object") }
        for key in object.keys where !["dtype", "shape", "data_offsets"].contains(key) {
            throw fail("has the unknown key '\(key)'")
        }
        guard let typeName = object["dtype"]?.stringValue else { throw fail("has no dtype") }
        guard let dtype = SafetensorsDType(rawValue: typeName) else {
            throw fail(
                "dtype '\(typeName)' is not known; known: "
                    + SafetensorsDType.allCases.map(\.rawValue).joined(separator: ", "))
        }
        guard let shapeValues = object["shape"]?.arrayValue else { throw fail("has no shape") }
        var shape: [Int] = []
        for value in shapeValues {
            guard let dimension = value.intValue, dimension >= 0 else {
                throw fail(
                    "a dimension is \((try? value.text()) ?? value.kind),"
                        + " expected a whole number of 0 or more"
                )
            }
            shape.append(dimension)
        }
        guard let byteCount = byteCount(shape: shape, dtype: dtype) else {
            throw fail("shape \(shape) is too large")
        }
        guard let offsets = object["data_offsets"]?.arrayValue, offsets.count == 2,
            let begin = offsets[0].intValue,
            let end = offsets[1].intValue
        else { throw fail("data_offsets must be two whole numbers") }
        guard begin >= 0, end >= begin else { throw fail("data_offsets [\(begin), \(end)] is not a range") }
        guard end - begin == byteCount else {
            throw fail("\(typeName) \(shape) needs \(byteCount) bytes, data_offsets give \(end - begin)")
        }
        return SafetensorsInfo(name: name, dtype: dtype, shape: shape, byteRange: begin..<end)
    }

    /// Bytes of a tensor, or nil if the product does not fit into an `Int`.
    static func byteCount(shape: [Int], dtype: SafetensorsDType) -> Int? {
        var count = dtype.size
        // Skip zeros: they must not hide an overflow in other dimensions.
        for dimension in shape where dimension != 0 {
            let (product, overflow) = count.multipliedReportingOverflow(by: dimension)
            if overflow { return nil }
            count = product
        }
        return shape.contains(0) ? 0 : count
    }

    /// The header's bytes with the length prefix, padded with spaces so that the data starts on a cache line.
    static func encode(
        _ tensors: [SafetensorsInfo], metadata: [String: String]
    ) throws(JSONError) -> [UInt8] {
        var table = JSONObject()
        if !metadata.isEmpty {
            var object = JSONObject()
            for key in metadata.keys.sorted() { object[key] = metadata[key].map { .string($0) } }
            table[metadataKey] = .object(object)
        }
        for tensor in tensors {
            table[tensor.name] = [
                "dtype": .string(tensor.dtype.rawValue),
                "shape": .array(tensor.shape.map { .integer($0) }),
                "data_offsets": [
                    .integer(tensor.byteRange.lowerBound), .integer(tensor.byteRange.upperBound),
                ],
            ]
        }
        var text = Array(try JSONValue.object(table).text().utf8)
        let padding = (64 - (8 + text.count) % 64) % 64
        text.append(contentsOf: repeatElement(UInt8(ascii: " "), count: padding))
        return withUnsafeBytes(of: UInt64(text.count).littleEndian) { Array($0) } + text
    }
}
