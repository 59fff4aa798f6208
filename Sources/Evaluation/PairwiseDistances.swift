import Communication
import TensorCore

// D: feature dimension.

/// Squared Euclidean distances between two sets of features, row by row, computed as |a|² + |b|² − 2a·b in
/// fp64. The ranks and threads share the rows in tiles of a fixed size, so that the results do not depend on
/// their number.
struct PairwiseDistances {
    let a: FeatureMatrix
    let b: FeatureMatrix
    /// Indices of the features of b to use; nil for all.
    var columns: [Int]?
    /// Whether the rows are also the columns, with the same indices. The distance of a row to itself is then
    /// infinite.
    var isWithin = false

    /// Rows of a tile, and columns computed at once.
    private static let rows = 128
    private static let width = 512

    /// Calls `body` with each row of this rank: its index and its distances to all columns. Several threads
    /// call it concurrently.
    func forEachRow(
        _ communicator: Communicator,
        _ body: (_ row: Int, _ distances: UnsafeBufferPointer<Double>) -> Void
    ) throws {
        let tiles = Array(
            stride(
                from: communicator.rank * Self.rows, to: a.count, by: communicator.size * Self.rows))
        let columns = columns ?? Array(0..<b.count)
        try communicator.collectively("comparing features") {
            let norms = try squaredNorms(of: b, columns)
            try Processor.concurrently(tiles.count) { index in
                let rows = tiles[index]..<min(tiles[index] + Self.rows, a.count)
                var distances = try tile(rows, columns, norms)
                for (place, row) in rows.enumerated() {
                    if isWithin { distances[place * columns.count + row] = .infinity }
                    distances.withUnsafeBufferPointer {
                        body(
                            row,
                            UnsafeBufferPointer(
                                rebasing: $0[place * columns.count..<(place + 1) * columns.count]))
                    }
                }
            }
        }
    }

    /// [rows.count, columns.count]
    private func tile(_ rows: Range<Int>, _ columns: [Int], _ otherNorms: [Double]) throws -> [Double] {
        let D = a.dimension
        let first = try a.doubles(rows)
        let norms = try squaredNorms(of: a, Array(rows))
        var result = [Double](repeating: 0, count: rows.count * columns.count)
        try result.withUnsafeMutableBufferPointer { result in
            for start in stride(from: 0, to: columns.count, by: Self.width) {
                let part = columns[start..<min(start + Self.width, columns.count)]
                let second = try b.doubles(part)
                DenseMatrix.multiply(
                    first, rowLength: D, second, rowLength: D, transposed: (a: false, b: true),
                    M: rows.count, N: part.count, K: D, into: result.baseAddress! + start,
                    rowLength: columns.count)
                for row in 0..<rows.count {
                    for column in 0..<part.count {
                        let at = row * columns.count + start + column
                        result[at] = max(0, norms[row] + otherNorms[start + column] - 2 * result[at])
                    }
                }
            }
        }
        return result
    }

    private func squaredNorms(of features: FeatureMatrix, _ rows: [Int]) throws -> [Double] {
        let D = features.dimension
        var norms: [Double] = []
        for start in stride(from: 0, to: rows.count, by: Self.width) {
            let values = try features.doubles(rows[start..<min(start + Self.width, rows.count)])
            for row in 0..<values.count / D {
                norms.append(values[row * D..<(row + 1) * D].reduce(0) { $0 + $1 * $1 })
            }
        }
        return norms
    }
}

/// Distances within one set of features.
struct OwnNeighbours {
    /// Squared distance of each feature to its k-th nearest neighbour.
    var radii: [Double]
    /// Squared distance of each feature to its nearest neighbour.
    var nearest: [Double]
    /// Mean distance over all pairs.
    var meanDistance: Double

    /// Measures a set of more than k features. Collective.
    init(_ features: FeatureMatrix, k: Int, _ communicator: Communicator) throws {
        let n = features.count
        precondition(n > k && k > 0, "\(k) neighbours among \(n)")
        // Per row: the radius, the distance to the nearest neighbour, and the sum of distances.
        var found = [Double](repeating: 0, count: 3 * n)
        try found.withUnsafeMutableBufferPointer { found in
            let found = found
            try PairwiseDistances(a: features, b: features, isWithin: true).forEachRow(communicator) {
                row, distances in
                var smallest: [Double] = []  // ascending, at most k
                var sum = 0.0
                for distance in distances where distance < .infinity {
                    sum += distance.squareRoot()
                    if smallest.count == k, distance >= smallest[k - 1] { continue }
                    if smallest.count == k { smallest.removeLast() }
                    let place = smallest.firstIndex { $0 > distance } ?? smallest.count
                    smallest.insert(distance, at: place)
                }
                found[3 * row] = smallest[k - 1]
                found[3 * row + 1] = smallest[0]
                found[3 * row + 2] = sum
            }
        }
        try communicator.allReduceSum(&found)
        radii = (0..<n).map { found[3 * $0] }
        nearest = (0..<n).map { found[3 * $0 + 1] }
        meanDistance = (0..<n).reduce(0) { $0 + found[3 * $1 + 2] } / Double(n * (n - 1))
    }
}

/// Detects duplicates among the samples and near-copies of training images, which distances between
/// distributions do not show.
///
/// Distances depend on the features, so the threshold is relative to the reference: to the median distance
/// from a reference image to its nearest neighbour, `referenceSpacing`. Different images are rarely closer
/// than a quarter of it.
struct Diversity {
    static let closeness = 0.25

    let neighbours: NeighbourMeasures

    private var limit: Double { Self.closeness * neighbours.referenceSpacing }

    /// Number of samples that are closer to another sample than the threshold.
    var duplicates: Int { neighbours.ownNearest.count { $0 < limit } }
    /// Number of samples that are closer to a training image than the threshold, as they are or mirrored.
    var memorised: Int { neighbours.nearestDistances.count { $0 < limit } }

    /// A sample and its nearest training image, and whether the mirrored sample is closer to it.
    struct Pair {
        let sample: Int
        let reference: Int
        let isMirrored: Bool
    }

    /// The samples nearest to a training image, nearest first.
    func closest(_ count: Int) -> [Pair] {
        let order = neighbours.nearestDistances.indices.sorted {
            (neighbours.nearestDistances[$0], $0) < (neighbours.nearestDistances[$1], $1)
        }
        return order.prefix(count).map {
            Pair(sample: $0, reference: neighbours.nearest[$0], isMirrored: neighbours.isMirrored[$0])
        }
    }
}
