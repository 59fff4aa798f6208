/// The checksum of one tensor's bytes, as they lie in its file.
public struct TensorChecksum: Sendable, Equatable, Codable {
    public var name: String
    public var crc32c: String

    public init(name: String, crc32c: String) {
        self.name = name
        self.crc32c = crc32c
    }
}

/// One file of a checkpoint, and how to know that it is whole.
public struct CheckpointFile: Sendable, Equatable, Codable {
    /// FOLDER/NAME in the checkpoint, for example "unet/config.json".
    public var path: String
    public var bytes: Int
    public var crc32c: String
    /// The tensors of a weight file in the order of their bytes; none of any other file.
    public var tensors: [TensorChecksum]

    public init(path: String, bytes: Int, crc32c: String, tensors: [TensorChecksum] = []) {
        self.path = path
        self.bytes = bytes
        self.crc32c = crc32c
        self.tensors = tensors
    }

    init(path: String, checksum: CRC32C, tensors: [TensorChecksum] = []) {
        self.init(path: path, bytes: checksum.count, crc32c: checksum.text, tensors: tensors)
    }

    /// The part of the path before the slash.
    public var folder: String { String(path.prefix { $0 != "/" }) }

    /// Whether it holds tensors.
    public var isWeights: Bool { path.hasSuffix(".safetensors") }
}

/// What `keep_best` compares checkpoints by: the lower, the better.
public struct CheckpointMetric: Sendable, Equatable {
    /// "loss".
    public var name: String
    public var value: Double

    public init(name: String, value: Double) {
        self.name = name
        self.value = value
    }
}
