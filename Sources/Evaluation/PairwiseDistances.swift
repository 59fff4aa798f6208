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
        _ communicator: any Communicator,
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
    init(_ features: FeatureMatrix, k: Int, _ communicator: any Communicator) throws {
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
