import Communication
import TensorCore

/// The squared maximum mean discrepancy between two sets of features under the polynomial kernel k(x, y) =
/// (x·y/D + 1)³, estimated without bias on random subsets. For Inception features it is KID (Bińkowski et
/// al., "Demystifying MMD GANs", 2018).
///
/// Unlike that of FID, the estimate does not increase for smaller sets, and it may be slightly negative if
/// the sets are alike.
package struct KernelDistance: Sendable, Equatable {
    /// Mean over the subsets.
    package var mean: Double
    /// Bounds of the 95 % confidence interval for other images of the same two distributions.
    package var low: Double
    package var high: Double

    package static let usualSubsets = 100
    package static let usualSubsetSize = 1000

    /// Number of images in a subset: 1000, or half of a smaller set, so that subsets differ.
    static func subsetSize(_ count: Int) -> Int { max(2, min(usualSubsetSize, count / 2)) }

    /// Measures two sets of at least four images each. Collective: the seed determines the subsets, which are
    /// shared among the ranks.
    package init(
        _ x: FeatureMatrix, _ y: FeatureMatrix, seed: UInt64, subsets: Int = usualSubsets,
        _ communicator: Communicator
    ) throws {
        precondition(x.dimension == y.dimension && min(x.count, y.count) >= 4 && subsets > 1)
        let smaller = min(x.count, y.count)
        let size = Self.subsetSize(smaller)
        let mine = Array(stride(from: communicator.rank, to: subsets, by: communicator.size))
        var values = [Double](repeating: 0, count: subsets)
        try communicator.collectively("reading features") {
            try values.withUnsafeMutableBufferPointer { values in
                let values = values
                try Processor.concurrently(mine.count) { index in
                    var random = CounterRandom(
                        seed: seed, purpose: .evaluation, sample: UInt64(mine[index]))
                    let (first, second) = (
                        Self.draw(size, of: x.count, &random), Self.draw(size, of: y.count, &random)
                    )
                    values[mine[index]] = Self.estimate(
                        try x.doubles(first), try y.doubles(second), dimension: x.dimension)
                }
            }
        }
        try communicator.allReduceSum(&values)
        let mean = values.reduce(0, +) / Double(subsets)
        let variance = values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(subsets - 1)
        // With a variance of σ²/m·(1 − m/N) between subsets of m out of N images, the variance of an estimate
        // from all N is σ²/N.
        let deviation = (variance * Double(size) / Double(max(1, smaller - size))).squareRoot()
        (self.mean, low, high) = (mean, mean - 1.96 * deviation, mean + 1.96 * deviation)
    }

    /// `size` distinct numbers below `count`, by the first steps of a Fisher–Yates shuffle.
    private static func draw(_ size: Int, of count: Int, _ random: inout CounterRandom) -> [Int] {
        var moved: [Int: Int] = [:]
        return (0..<size).map { place in
            let other = place + random.integer(below: count - place)
            let drawn = moved[other] ?? other
            moved[other] = moved[place] ?? place
            return drawn
        }
    }

    /// The unbiased estimate for x [n, D] and y [m, D]: the mean of k over pairs of distinct images of x,
    /// plus that of y, minus twice the mean over pairs of x and y.
    package static func estimate(_ x: [Double], _ y: [Double], dimension D: Int) -> Double {
        let block = 128
        func mean(_ a: [Double], _ b: [Double], isSame: Bool) -> Double {
            let (n, m) = (a.count / D, b.count / D)
            var gram = [Double](repeating: 0, count: block * m)
            var sum = 0.0
            for start in stride(from: 0, to: n, by: block) {
                let rows = min(block, n - start)
                // Within one set, compute each pair once: from the diagonal on.
                let first = isSame ? start : 0
                a.withUnsafeBufferPointer { a in
                    b.withUnsafeBufferPointer { b in
                        gram.withUnsafeMutableBufferPointer { gram in
                            DenseMatrix.multiply(
                                a.baseAddress! + start * D, rowLength: D, b.baseAddress! + first * D,
                                rowLength: D, transposed: (a: false, b: true), M: rows, N: m - first, K: D,
                                into: gram.baseAddress!, rowLength: m)
                        }
                    }
                }
                for i in 0..<rows {
                    var row = 0.0
                    for j in (isSame ? i + 1 : 0)..<m - first {
                        let base = gram[i * m + j] / Double(D) + 1
                        row += base * base * base
                    }
                    sum += isSame ? 2 * row : row
                }
            }
            return sum / Double(isSame ? n * (n - 1) : n * m)
        }
        return mean(x, x, isSame: true) + mean(y, y, isSame: true) - 2 * mean(x, y, isSame: false)
    }
}
