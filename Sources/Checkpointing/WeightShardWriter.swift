import FileFormats
import Foundation
import Support

/// Writes one weight file of a checkpoint, and sums it as it goes.
struct WeightShardWriter: ~Copyable {
    private let path: String
    private var writer: SafetensorsWriter
    private var data = CRC32C()
    private var tensors: [TensorChecksum] = []

    /// Starts the file with these tensors, fp32, in this order.
    init(path: String, _ entries: [TensorTable.Entry]) throws(CheckpointError) {
        self.path = path
        do {
            writer = try SafetensorsWriter(
                path: path, tensors: entries.map { SafetensorsEntry($0.name, shape: $0.shape) },
                metadata: ["format": "pt"], as: .fresh)
        } catch {
            throw CheckpointError(writing: error, to: path)
        }
    }

    /// Appends the next tensor whole.
    ///
    /// - Parameter pieces: hands its bytes over, piece by piece.
    /// - Returns: its checksum.
    @discardableResult
    mutating func append(
        _ name: String,
        _ pieces: (_ write: (UnsafeRawBufferPointer) throws(CheckpointError) -> Void) throws(CheckpointError)
            -> Void
    ) throws(CheckpointError) -> CRC32C {
        var sum = CRC32C()
        try pieces { (bytes) throws(CheckpointError) in
            do {
                try writer.append(name, bytes: bytes)
            } catch {
                throw CheckpointError(writing: error, to: path)
            }
            // As it lies in memory, so that a write that went wrong is found.
            sum.update(bytes)
        }
        data.append(sum)
        tensors.append(TensorChecksum(name: name, crc32c: sum.text))
        return sum
    }

    /// Completes the file: its bytes are on the disk; the folder is not synchronized.
    ///
    /// - Parameter relative: its path in the checkpoint.
    consuming func finish(as relative: String) throws(CheckpointError) -> CheckpointFile {
        let (path, data, tensors) = (path, data, tensors)
        do {
            try writer.finish()
        } catch {
            throw CheckpointError(writing: error, to: path)
        }
        // The header, which the writer made, can only be read back.
        let reader = try CheckpointReader(path)
        guard reader.size >= data.count else {
            throw CheckpointError(
                .damaged, path, "is not as long as what was written; is the disk sound?")
        }
        var whole = try reader.checksum(of: 0..<reader.size - data.count)
        whole.append(data)
        return CheckpointFile(path: relative, checksum: whole, tensors: tensors)
    }
}
