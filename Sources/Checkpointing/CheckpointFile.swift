import Support

/// The checksum of one tensor's bytes as stored in its file.
package struct TensorChecksum: Sendable, Equatable, Codable {
    package var name: String
    package var crc32c: String

    package init(name: String, crc32c: String) {
        self.name = name
        self.crc32c = crc32c
    }
}

/// One file of a checkpoint, with the size and checksums to verify it.
package struct CheckpointFile: Sendable, Equatable, Codable {
    /// FOLDER/NAME relative to the checkpoint, for example "unet/config.json".
    package var path: String
    package var bytes: Int
    package var crc32c: String
    /// The tensors of a weight file in the order of their bytes; empty for other files.
    package var tensors: [TensorChecksum]

    package init(path: String, bytes: Int, crc32c: String, tensors: [TensorChecksum] = []) {
        self.path = path
        self.bytes = bytes
        self.crc32c = crc32c
        self.tensors = tensors
    }

    init(path: String, checksum: CRC32C, tensors: [TensorChecksum] = []) {
        self.init(path: path, bytes: checksum.count, crc32c: checksum.text, tensors: tensors)
    }

    /// The part of the path before the slash.
    package var folder: String { String(path.prefix { $0 != "/" }) }

    /// Whether it holds tensors.
    package var isWeights: Bool { path.hasSuffix(".safetensors") }
}

/// The metric by which `keep_best` compares checkpoints; lower is better.
package struct CheckpointMetric: Sendable, Equatable {
    /// "loss".
    package var name: String
    package var value: Double

    package init(name: String, value: Double) {
        self.name = name
        self.value = value
    }
}
