import FileFormats
import TensorCore

// N: images, D: feature dimension.

/// The features of a set of images, [N, D] fp32: in memory, or read in parts from a file, which the ranks of
/// a host share through the page cache.
package struct FeatureMatrix: Sendable {
    package let count: Int
    package let dimension: Int
    private let storage: Storage

    private enum Storage: Sendable {
        case memory([Float])
        case file(SafetensorsFile, tensor: String)
    }

    /// Name of the tensor in a file.
    static let tensor = "features"
    /// Name of the tensor of the mirrored images.
    static let mirrored = "mirrored"

    /// - Parameter values: [count, dimension]
    package init(_ values: [Float], count: Int, dimension: Int) {
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
    ///
    /// - Throws: if the file can no longer be read.
    package func doubles(_ rows: some Collection<Int>) throws -> [Double] {
        let dimension = dimension
        return try [Double](unsafeUninitializedCapacity: rows.count * dimension) { out, initialized in
            var to = 0
            try forEachRun(of: rows) { values in
                for value in values {
                    out[to] = Double(value)
                    to += 1
                }
            }
            initialized = to
        }
    }

    /// Some of the rows, in memory.
    func subset(_ rows: [Int]) throws -> FeatureMatrix {
        var values: [Float] = []
        values.reserveCapacity(rows.count * dimension)
        try forEachRun(of: rows) { values += $0 }
        return FeatureMatrix(values, count: rows.count, dimension: dimension)
    }

    /// Calls `body` with all rows in order, in parts of a few hundred: the index of the first row, and the
    /// values.
    func forEachPart(_ body: (Int, UnsafeBufferPointer<Float>) -> Void) throws {
        for start in stride(from: 0, to: count, by: Self.part) {
            try forEachRun(of: start..<min(start + Self.part, count)) { body(start, $0) }
        }
    }

    private static let part = 256

    /// Calls `body` with the values of each run of consecutive rows, [n, D].
    private func forEachRun(
        of rows: some Collection<Int>, _ body: (UnsafeBufferPointer<Float>) -> Void
    ) throws {
        var rest = rows[...]
        while let first = rest.first {
            let run = zip(rest, first...).prefix { $0 == $1 }.reduce(0) { count, _ in count + 1 }
            rest = rest.dropFirst(run)
            switch storage {
            case .memory(let values):
                values[first * dimension..<(first + run) * dimension].withUnsafeBufferPointer(body)
            case .file(let file, let tensor):
                try file.floats(of: tensor, rows: first..<first + run).withUnsafeBufferPointer(body)
            }
        }
    }
}
