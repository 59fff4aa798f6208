import Communication
import Synchronization

/// Measures of the overlap between two sets of features, based on balls around each feature that extend to
/// its k-th nearest neighbour.
///
/// Precision and recall: Kynkäänniemi et al., "Improved Precision and Recall Metric for Assessing Generative
/// Models", 2019. Density and coverage: Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative
/// Models", 2020. The values equal those of the latter's `prdc` package.
package struct ManifoldMeasures: Sendable, Equatable {
    /// Fraction of the samples that lie in any reference image's ball (fidelity).
    package var precision: Double
    /// Fraction of the reference images that lie in any sample's ball (diversity).
    package var recall: Double
    /// Mean number of reference balls that contain a sample, divided by k; may exceed 1.
    package var density: Double
    /// Fraction of the reference balls that contain a sample.
    package var coverage: Double

    /// The value of k in Naeem et al.
    package static let usualNeighbours = 5
}

/// Measures of the samples against the reference: the manifolds, and the nearest training image of each
/// sample.
package struct NeighbourMeasures: Sendable, Equatable {
    package var manifolds: ManifoldMeasures
    /// For each sample, the distance to its nearest reference image (the sample as it is or mirrored), that
    /// image's index, and whether the mirrored sample is closer to it.
    package var nearestDistances: [Double]
    package var nearest: [Int]
    package var isMirrored: [Bool]
    /// Distance of each sample to the nearest other sample.
    package var ownNearest: [Double]
    /// Mean distance between two samples.
    package var meanPairwise: Double
    /// Median distance of a reference image to its nearest neighbour: the scale for judging whether images
    /// are close.
    package var referenceSpacing: Double

    /// Compares two sets of more than k features each. Collective.
    ///
    /// The size of a ball depends on the number of features, so the manifolds use as many reference images as
    /// there are samples, spread evenly over the reference. The nearest training image is searched among all
    /// of them.
    ///
    /// - Parameters:
    ///   - mirrored: features of the mirrored samples, since a model trained with horizontal flips may copy a
    ///     mirrored image. Only the nearest training image depends on them.
    ///   - tick: called regularly while the measurement makes progress.
    package init(
        samples: FeatureMatrix, mirrored: FeatureMatrix? = nil, reference: FeatureMatrix,
        k: Int = ManifoldMeasures.usualNeighbours, _ communicator: Communicator, tick: () -> Void = {}
    ) throws {
        let own = try OwnNeighbours(samples, k: k, communicator)
        tick()
        let chosen = Self.spread(min(samples.count, reference.count), over: reference.count)
        let theirs = try OwnNeighbours(reference.chosen(chosen), k: k, communicator)
        tick()
        let n = samples.count
        // Per sample: the number of reference balls that contain it, the distance to its nearest reference
        // image, and that image's index.
        var rows = [Double](repeating: 0, count: 3 * n)
        // Per chosen reference image: 1 if a sample's ball contains it, and the distance of the nearest
        // sample.
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

    /// The distance and index of the nearest reference image of each sample.
    private static func nearest(
        _ samples: FeatureMatrix, _ reference: FeatureMatrix, _ communicator: Communicator
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

    /// `count` evenly spaced indices below `total`.
    static func spread(_ count: Int, over total: Int) -> [Int] { (0..<count).map { $0 * total / count } }
}

extension FeatureMatrix {
    /// A matrix of the given rows only, or self if they are all rows.
    func chosen(_ rows: [Int]) throws -> FeatureMatrix {
        if rows.count == count { return self }
        return FeatureMatrix(try doubles(rows).map { Float($0) }, count: rows.count, dimension: dimension)
    }
}

/// The index of the smallest value; the first one if several are equal.
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
