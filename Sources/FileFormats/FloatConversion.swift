/// Conversions between fp32 and the floating-point types of files. File data is little-endian and may be
/// unaligned.
enum FloatConversion {
    /// Converts elements of type `dtype` in `source` to fp32 in `destination`, which has the same number of
    /// elements.
    static func decode(
        _ source: UnsafeRawBufferPointer, as dtype: SafetensorsDType,
        into destination: UnsafeMutableBufferPointer<Float>
    ) {
        guard let out = destination.baseAddress, let base = source.baseAddress else { return }
        switch dtype {
        case .f32:
            UnsafeMutableRawPointer(out).copyMemory(from: base, byteCount: source.count)
        case .bf16:
            for i in 0..<destination.count {
                let bits = UInt16(littleEndian: base.loadUnaligned(fromByteOffset: 2 * i, as: UInt16.self))
                out[i] = Float(bitPattern: UInt32(bits) << 16)
            }
        case .f16:
            for i in 0..<destination.count {
                let bits = UInt16(littleEndian: base.loadUnaligned(fromByteOffset: 2 * i, as: UInt16.self))
                out[i] = Float(Float16(bitPattern: bits))
            }
        case .f64:
            for i in 0..<destination.count {
                let bits = UInt64(littleEndian: base.loadUnaligned(fromByteOffset: 8 * i, as: UInt64.self))
                out[i] = Float(Double(bitPattern: bits))
            }
        default:
            preconditionFailure("not a floating-point type: \(dtype)")
        }
    }

    /// Converts `source` to elements of type `dtype`, rounded to nearest even.
    static func encode(_ source: UnsafeBufferPointer<Float>, as dtype: SafetensorsDType) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: source.count * dtype.size)
        bytes.withUnsafeMutableBytes { out in
            switch dtype {
            case .f32:
                out.copyMemory(from: UnsafeRawBufferPointer(source))
            case .bf16:
                for (i, value) in source.enumerated() {
                    out.storeBytes(of: bfloat16(value).littleEndian, toByteOffset: 2 * i, as: UInt16.self)
                }
            case .f16:
                for (i, value) in source.enumerated() {
                    out.storeBytes(
                        of: Float16(value).bitPattern.littleEndian, toByteOffset: 2 * i, as: UInt16.self)
                }
            case .f64:
                for (i, value) in source.enumerated() {
                    out.storeBytes(
                        of: Double(value).bitPattern.littleEndian, toByteOffset: 8 * i, as: UInt64.self)
                }
            default:
                preconditionFailure("not a floating-point type: \(dtype)")
            }
        }
        return bytes
    }

    /// Converts to bfloat16 bits, rounded to nearest even; NaN stays NaN.
    static func bfloat16(_ value: Float) -> UInt16 {
        let bits = value.bitPattern
        if value.isNaN { return UInt16(bits >> 16) | 0x0040 }
        return UInt16((bits &+ 0x7FFF &+ (bits >> 16 & 1)) >> 16)
    }
}
