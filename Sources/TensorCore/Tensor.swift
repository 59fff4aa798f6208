import CKernels

/// The element types of activations. Parameters, statistics, losses and the optimizer are always fp32.
package enum DType: String, Sendable {
    case float32
    case bfloat16

    /// Bytes per element.
    package var byteCount: Int { self == .float32 ? 4 : 2 }

    var kernel: ck_dtype { self == .float32 ? CK_F32 : CK_BF16 }
}

/// A tensor on a tape: shape, type, and the storage assigned by the memory plan.
///
/// The layout is NHWC, [B, H, W, C], row-major. A tensor has no value while a tape is being recorded. Its
/// value is available while the tape runs, and afterwards for inputs and kept tensors.
package final class Tensor {
    package let shape: [Int]
    package let dtype: DType
    /// Whether a gradient is computed for this tensor, because it depends on a parameter or is an input that
    /// requires one.
    package let needsGradient: Bool
    let storage: Storage

    init(shape: [Int], dtype: DType, needsGradient: Bool, storage: Storage) {
        precondition(shape.allSatisfy { $0 > 0 }, "shape \(shape) has an empty dimension")
        (self.shape, self.dtype) = (shape, dtype)
        (self.needsGradient, self.storage) = (needsGradient, storage)
    }

    /// Number of elements.
    package var count: Int { shape.reduce(1, *) }
    package var byteCount: Int { count * dtype.byteCount }

    /// Pointer to the first element; valid once the tape has been planned.
    package var pointer: UnsafeMutableRawPointer { storage.pointer }

    /// The elements of an fp32 tensor.
    package var floats: UnsafeMutableBufferPointer<Float> {
        precondition(dtype == .float32, "floats of a \(dtype) tensor")
        return UnsafeMutableBufferPointer(start: pointer.assumingMemoryBound(to: Float.self), count: count)
    }

    /// Copies the elements as fp32, converting from any type.
    package func readFloats() -> [Float] {
        [Float](unsafeUninitializedCapacity: count) { buffer, initialized in
            ck_cast(dtype.kernel, CK_F32, count, pointer, buffer.baseAddress!)
            initialized = count
        }
    }

    /// Writes fp32 values into the tensor, converting to its type.
    package func write(_ values: UnsafeBufferPointer<Float>) {
        precondition(values.count == count, "\(values.count) values for shape \(shape)")
        ck_cast(CK_F32, dtype.kernel, count, values.baseAddress!, pointer)
    }

    package func write(_ values: [Float]) { values.withUnsafeBufferPointer { write($0) } }
}

/// The memory of one or more tensors of a tape. Views share a storage.
final class Storage {
    let byteCount: Int
    /// First and last instruction that accesses the storage. The plan reuses memory only for storages with
    /// disjoint lifetimes.
    var firstUse = Int.max
    var lastUse = -1
    /// The storage whose memory this one reuses, because the instruction that writes this one works in place.
    var inPlaceOf: Storage?
    private var arena: Arena?
    private var offset = 0

    init(byteCount: Int) { self.byteCount = byteCount }

    var pointer: UnsafeMutableRawPointer {
        guard let arena else { preconditionFailure("a tensor is read before its tape was planned") }
        return arena.base + offset
    }

    func place(in arena: Arena, at offset: Int) {
        self.arena = arena
        self.offset = offset
    }

    func touch(at instruction: Int) {
        firstUse = min(firstUse, instruction)
        lastUse = max(lastUse, instruction)
    }

    /// The storage that owns the memory of this one.
    var root: Storage {
        var storage = self
        while let next = storage.inPlaceOf { storage = next }
        return storage
    }
}

/// Converts between NCHW, the layout of tensors in files (as in PyTorch), and NHWC, the layout in memory.
package enum Layout {
    /// [B, C, H, W] from [B, H, W, C].
    package static func nchw(_ x: [Float], batch: Int, height: Int, width: Int, channels: Int) -> [Float] {
        precondition(x.count == batch * height * width * channels)
        return [Float](unsafeUninitializedCapacity: x.count) { buffer, count in
            ck_nhwc_to_nchw(CK_F32, batch, channels, height, width, x, buffer.baseAddress)
            count = x.count
        }
    }

    /// [B, H, W, C] from [B, C, H, W].
    package static func nhwc(_ x: [Float], batch: Int, height: Int, width: Int, channels: Int) -> [Float] {
        precondition(x.count == batch * height * width * channels)
        return [Float](unsafeUninitializedCapacity: x.count) { buffer, count in
            ck_nchw_to_nhwc(CK_F32, batch, channels, height, width, x, buffer.baseAddress)
            count = x.count
        }
    }
}
