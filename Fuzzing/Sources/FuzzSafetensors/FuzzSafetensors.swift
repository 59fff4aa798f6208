import FileFormats
import Harness
import LDMModel
import TensorCore

private let file = ScratchFile()

/// A whole safetensors file: every tensor is read in every way, and loaded into a model of three parameters.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    file.set(start, count)
    expectCleanly {
        let tensors = try SafetensorsFile(path: file.path)
        var bytes = 0
        for name in tensors.names {
            let info = try tensors.info(of: name)
            let size = try tensors.withBytes(of: name) { bytes in
                precondition(bytes.reduce(0) { $0 + Int($1) } >= 0)
                return bytes.count
            }
            precondition(size == info.count * info.dtype.size, "\(size) bytes")
            bytes += size
            if info.dtype.isFloatingPoint {
                let floats = try tensors.floats(of: name)
                precondition(floats.count == info.count)
                if let rows = info.shape.first, rows > 0, info.rowCount > 0 {
                    let last = try tensors.floats(of: name, rows: rows - 1..<rows)
                    precondition(last.count == info.rowCount)
                }
            }
            expectCleanly {
                let integers = try tensors.integers(of: name)
                precondition(integers.count == info.count)
            }
            expectCleanly { _ = try tensors.floats(of: name, rows: 1..<2) }
            expectCleanly { _ = try tensors.info(of: String(name.dropLast()) + "~") }
            try tensors.prefetch(name)
        }
        precondition(bytes <= tensors.fileSize)
    }
    expectCleanly {
        let store = ParameterStore()
        _ = store.declare("matrix", [4, 3, 2], .zeros)
        _ = store.declare("attention.to_q.weight", [2, 2], .zeros)
        _ = store.declare("f32", [10], .zeros)
        try WeightLoading.load(try WeightFiles(path: file.path), into: store)
    }
    return 0
}

@_silgen_name("LLVMFuzzerMutate")
private func mutate(_ data: UnsafeMutablePointer<UInt8>, _ size: Int, _ limit: Int) -> Int

/// Mostly changes the header and keeps its length right, or else nearly every input would fail at its first check.
@_cdecl("LLVMFuzzerCustomMutator")
public func mutateFile(
    _ data: UnsafeMutablePointer<UInt8>, _ size: Int, _ limit: Int, _ seed: UInt32
) -> Int {
    guard size >= 8, seed % 8 != 0 else { return mutate(data, size, limit) }
    let raw = UnsafeMutableRawPointer(data)
    let length = Int(clamping: UInt64(littleEndian: raw.loadUnaligned(as: UInt64.self)))
    guard length <= size - 8 else { return mutate(data, size, limit) }
    var rest = Array(UnsafeBufferPointer(start: data + 8 + length, count: size - 8 - length))
    guard limit - 8 - rest.count > 0 else { return mutate(data, size, limit) }
    let header = mutate(data + 8, length, limit - 8 - rest.count)
    if seed % 8 == 1 { rest = Array(repeating: 0, count: min(limit - 8 - header, Int(seed >> 8) % 256)) }
    raw.storeBytes(of: UInt64(header).littleEndian, as: UInt64.self)
    for (i, byte) in rest.enumerated() { data[8 + header + i] = byte }
    return 8 + header + rest.count
}
