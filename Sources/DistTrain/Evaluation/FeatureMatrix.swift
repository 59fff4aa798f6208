import LDMModel

// N: images, D: length of a feature.

/// Features of a set of images, [N, D] fp32: in memory, or mapped from a file, which the ranks of a machine then hold
/// once.
public struct FeatureMatrix: Sendable {
    public let count: Int
    public let dimension: Int
    private let storage: Storage

    private enum Storage: Sendable {
        case memory([Float])
        case file(SafetensorsFile, tensor: String)
    }

    /// Name of the tensor in a file.
    static let tensor = "features"
    /// The same of the mirrored images.
    static let mirrored = "mirrored"

    /// - Parameter values: [count, dimension]
    public init(_ values: [Float], count: Int, dimension: Int) {
        precondition(values.count == count * dimension, "\(values.count) values for [\(count), \(dimension)]")
        (self.count, self.dimension, storage) = (count, dimension, .memory(values))
    }

    /// A tensor [N, D] of a safetensors file.
    init(_ file: SafetensorsFile, _ tensor: String = Self.tensor) throws(SafetensorsError) {
        let info = try file.info(of: tensor)
        guard info.shape.count == 2, info.dtype == .f32, info.count > 0 else {
            throw SafetensorsError(
                .mismatch, file.path,
                "\(tensor) is \(info.dtype.rawValue) \(info.shapeText), expected F32 [N, D]")
        }
        (count, dimension, storage) = (info.shape[0], info.shape[1], .file(file, tensor: tensor))
    }

    /// Rows `rows` in fp64, [rows.count, D].
    public func doubles(_ rows: some Collection<Int>) -> [Double] {
        let dimension = dimension
        return [Double](unsafeUninitializedCapacity: rows.count * dimension) { out, initialized in
            withValues { values in
                for (place, row) in rows.enumerated() {
                    let (to, from) = (place * dimension, row * dimension)
                    for i in 0..<dimension { out[to + i] = Double(values[from + i]) }
                }
            }
            initialized = rows.count * dimension
        }
    }

    /// All values, [N, D].
    func withValues(_ body: (UnsafePointer<Float>) -> Void) {
        switch storage {
        case .memory(let values): values.withUnsafeBufferPointer { body($0.baseAddress!) }
        case .file(let file, let tensor):
            // The tensor was checked when the file was opened, and is aligned: tensors of 4 bytes come first.
            let mapped: Void? = try? file.withBytes(of: tensor) {
                body($0.baseAddress!.assumingMemoryBound(to: Float.self))
            }
            precondition(mapped != nil, "\(file.path) was opened with its features")
        }
    }

    /// Whether every value is a number.
    var isFinite: Bool {
        var finite = true
        withValues { values in
            for i in 0..<count * dimension where !values[i].isFinite { finite = false }
        }
        return finite
    }
}
