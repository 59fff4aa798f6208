import Support

/// Element types of safetensors files.
package enum SafetensorsDType: String, Sendable, CaseIterable {
    case bool = "BOOL"
    case u8 = "U8"
    case i8 = "I8"
    case f8E5M2 = "F8_E5M2"
    case f8E4M3 = "F8_E4M3"
    case i16 = "I16"
    case u16 = "U16"
    case f16 = "F16"
    case bf16 = "BF16"
    case i32 = "I32"
    case u32 = "U32"
    case f32 = "F32"
    case c64 = "C64"
    case f64 = "F64"
    case i64 = "I64"
    case u64 = "U64"

    /// Bytes of one element.
    package var size: Int {
        switch self {
        case .bool, .u8, .i8, .f8E5M2, .f8E4M3: return 1
        case .i16, .u16, .f16, .bf16: return 2
        case .i32, .u32, .f32: return 4
        case .c64, .f64, .i64, .u64: return 8
        }
    }

    /// Whether `floats(of:)` converts this type.
    package var isFloatingPoint: Bool { [.f16, .bf16, .f32, .f64].contains(self) }
}

/// Name, type, shape and byte range of one tensor.
package struct SafetensorsInfo: Sendable, Equatable {
    package let name: String
    package let dtype: SafetensorsDType
    package let shape: [Int]
    /// Byte range relative to the first byte after the header of a safetensors file. For other files only its
    /// length is defined.
    package let byteRange: Range<Int>

    package init(name: String, dtype: SafetensorsDType, shape: [Int], byteRange: Range<Int>) {
        (self.name, self.dtype, self.shape, self.byteRange) = (name, dtype, shape, byteRange)
    }

    /// Number of elements; 1 for a scalar.
    package var count: Int { byteRange.count / dtype.size }

    /// Number of elements per index of the first dimension; the whole tensor for a scalar.
    package var rowCount: Int { shape.dropFirst().reduce(1, *) }

    /// The shape as it is formatted in error messages.
    package var shapeText: String { "[\(shape.map(String.init).joined(separator: ", "))]" }
}

/// Why a file of tensors cannot be read or written; the message is one line.
package struct SafetensorsError: ReportableError, Equatable, Sendable {
    /// The category of a failure.
    package enum Kind: Sendable, Equatable {
        /// Opening, reading or writing failed.
        case file
        /// The header's length or text is invalid.
        case header
        /// A tensor's type, shape or byte range is invalid.
        case tensor
        /// Byte ranges overlap, leave gaps, or do not end at the end of the file.
        case layout
        /// No tensor has the requested name.
        case missing
        /// The tensor exists, but its type or shape is not the requested one.
        case mismatch
        /// The writer was used out of order or left unfinished.
        case incomplete
    }

    package var kind: Kind
    package var path: String
    package var detail: String
    /// `errno` of the failed file operation; 0 for any other reason.
    package var code: Int32

    package init(_ kind: Kind, _ path: String, _ detail: String, code: Int32 = 0) {
        (self.kind, self.path, self.detail, self.code) = (kind, path, detail, code)
    }

    init(_ error: FileError) { self.init(.file, error.path, error.detail, code: error.code) }

    package var message: String { "\(path): \(detail)".oneLine() }
    package var exitStatus: Int32 { ExitStatus.forSystemError(code, otherwise: ExitStatus.refused) }
}
