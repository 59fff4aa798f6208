import Communication
import Synchronization

/// How two sets of features overlap, by balls around each feature that reach to its k-th nearest neighbour.
///
/// Precision and recall: Kynkäänniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models",
/// 2019. Density and coverage: Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative Models", 2020. The
/// numbers are those of the latter's `prdc` package.
package struct ManifoldMeasures: Sendable, Equatable {
    /// Share of the samples that lie in some reference image's ball: are they real?
    package var precision: Double
    /// Share of the reference images that lie in some sample's ball: is everything there?
    package var recall: Double
    /// Reference balls that a sample lies in, on the mean, over k; may exceed 1.
    package var density: Double
    /// Share of the reference balls that hold a sample.
    package var coverage: Double

    /// k of Naeem et al.
    package static let usualNeighbours = 5
}

/// The samples against the reference: the manifolds, and the nearest training image of each sample.
package struct NeighbourMeasures: Sendable, Equatable {
    package var manifolds: ManifoldMeasures
    /// Distance of each sample, as it is or mirrored, to its nearest reference image, which that is, and whether the
    /// sample is nearer to it mirrored.
    package var nearestDistances: [Double]
    package var nearest: [Int]
    package var isMirrored: [Bool]
    /// Distance of each sample to the nearest other sample.
    package var ownNearest: [Double]
    /// Mean distance between two samples.
    package var meanPairwise: Double
    /// Median distance of a reference image to the nearest other: what is near, and what is not.
    package var referenceSpacing: Double

    /// Compares sets of more than k features each. Collective.
    ///
    /// A ball's reach depends on how many features there are, so the manifolds compare as many reference images as
    /// there are samples, spread evenly over all. The nearest training image is looked for among all.
    ///
    /// - Parameters:
    ///   - mirrored: features of the mirrored samples: of a network that was trained on mirrored images too, a copy may
    ///     be one of those. Only the nearest training image depends on them.
    ///   - tick: called as it gets on.
    package init(
        samples: FeatureMatrix, mirrored: FeatureMatrix? = nil, reference: FeatureMatrix,
        k: Int = ManifoldMeasures.usualNeighbours, _ communicator: any Communicator, tick: () -> Void = {}
    ) throws {
        let own = try OwnNeighbours(samples, k: k, communicator)
        tick()
        let chosen = Self.spread(min(samples.count, reference.count), over: reference.count)
        let theirs = try OwnNeighbours(reference.chosen(chosen), k: k, communicator)
        tick()
        let n = samples.count
        // Of each sample: reference balls that it lies in, and its nearest reference image with its distance.
        var rows = [Double](repeating: 0, count: 3 * n)
        // Of each chosen reference image: 1 where a sample's ball holds it, and the distance of the nearest sample.
        let overlap = Mutex(
            (
                isRecalled: [Double](repeating: 0, count: chosen.count),
                nearest: [Double](repeating: .infinity, count: chosen.count)
            ))
        try rows.withUnsafeMutableBufferPointer { rows in
            let rows = rows
            try PairwiseDistances(a: samples, b: reference).forEachRow(communicator) { row, distances in
                var balls = 0
                overlap.withLock { overlap in
                    for (place, column) in chosen.enumerated() {
                        let distance = distances[column]
                        if distance < theirs.radii[place] { balls += 1 }
                        if distance < own.radii[row] { overlap.isRecalled[place] = 1 }
                        if distance < overlap.nearest[place] { overlap.nearest[place] = distance }
                    }
                }
                let best = smallest(distances)
                rows[3 * row] = Double(balls)
                rows[3 * row + 1] = distances[best].squareRoot()
                rows[3 * row + 2] = Double(best)
            }
        }
        try communicator.allReduceSum(&rows)
        var (isRecalled, nearestSample) = overlap.withLock { ($0.isRecalled, $0.nearest) }
        try communicator.allReduceMax(&isRecalled)
        try communicator.allReduceMin(&nearestSample)

        func share(_ count: Int, of total: Int) -> Double { Double(count) / Double(total) }
        manifolds = ManifoldMeasures(
            precision: share((0..<n).count { rows[3 * $0] > 0 }, of: n),
            recall: share(isRecalled.count { $0 > 0 }, of: chosen.count),
            density: (0..<n).reduce(0) { $0 + rows[3 * $1] } / Double(k * n),
            coverage: share(
                chosen.indices.count { nearestSample[$0] < theirs.radii[$0] }, of: chosen.count))
        nearestDistances = (0..<n).map { rows[3 * $0 + 1] }
        nearest = (0..<n).map { Int(rows[3 * $0 + 2]) }
        isMirrored = [Bool](repeating: false, count: n)
        if let mirrored {
            let found = try Self.nearest(mirrored, reference, communicator)
            for row in 0..<n where found.distances[row] < nearestDistances[row] {
                (nearestDistances[row], nearest[row], isMirrored[row]) = (
                    found.distances[row], found.indices[row], true
                )
            }
        }
        ownNearest = own.nearest.map { $0.squareRoot() }
        meanPairwise = own.meanDistance
        referenceSpacing = median(theirs.nearest).squareRoot()
    }

    /// Of each sample the nearest reference image, and its distance.
    private static func nearest(
        _ samples: FeatureMatrix, _ reference: FeatureMatrix, _ communicator: any Communicator
    ) throws -> (distances: [Double], indices: [Int]) {
        let n = samples.count
        var rows = [Double](repeating: 0, count: 2 * n)
        try rows.withUnsafeMutableBufferPointer { rows in
            let rows = rows
            try PairwiseDistances(a: samples, b: reference).forEachRow(communicator) { row, distances in
                let best = smallest(distances)
                rows[2 * row] = distances[best].squareRoot()
                rows[2 * row + 1] = Double(best)
            }
        }
        try communicator.allReduceSum(&rows)
        return ((0..<n).map { rows[2 * $0] }, (0..<n).map { Int(rows[2 * $0 + 1]) })
    }

    /// `count` indices below `total`, evenly apart.
    static func spread(_ count: Int, over total: Int) -> [Int] { (0..<count).map { $0 * total / count } }
}

extension FeatureMatrix {
    /// These rows alone; the matrix itself where they are all of them.
    func chosen(_ rows: [Int]) throws -> FeatureMatrix {
        if rows.count == count { return self }
        return FeatureMatrix(try doubles(rows).map { Float($0) }, count: rows.count, dimension: dimension)
    }
}

/// Where the smallest value is; the first of equal ones.
private func smallest(_ values: UnsafeBufferPointer<Double>) -> Int {
    var best = 0
    for index in values.indices where values[index] < values[best] { best = index }
    return best
}

/// The middle value, or the mean of the two middle ones.
package func median(_ values: [Double]) -> Double {
    precondition(!values.isEmpty, "the median of nothing")
    let sorted = values.sorted()
    let middle = sorted.count / 2
    return sorted.count % 2 == 1 ? sorted[middle] : 0.5 * (sorted[middle - 1] + sorted[middle])
}
