import Communication
import FileFormats
import Foundation
import TensorCore

// N: images, D: feature dimension.

/// Mean and covariance of features, in fp64.
package struct FeatureStatistics: Sendable, Equatable {
    /// Number of images; 0 if unknown, as for files of other programs.
    package var count: Int
    /// μ, [D]
    package var mean: [Double]
    /// Σ = Σᵢ (fᵢ − μ)(fᵢ − μ)ᵀ / (N − 1), [D, D], as numpy's `cov`
    package var covariance: [Double]

    package var dimension: Int { mean.count }

    package init(count: Int, mean: [Double], covariance: [Double]) {
        precondition(covariance.count == mean.count * mean.count)
        (self.count, self.mean, self.covariance) = (count, mean, covariance)
    }

    /// Computes the statistics of a set of at least two images. Collective: ranks and threads share the rows
    /// of the covariance, so that the order of every summation does not depend on their number.
    package init(of features: FeatureMatrix, _ communicator: Communicator) throws {
        let (N, D) = (features.count, features.dimension)
        precondition(N > 1, "a covariance of \(N) images")
        let mean = try communicator.collectively("reading features") { try Self.mean(features) }
        let blocks = Array(
            stride(from: communicator.rank, to: (D + Self.block - 1) / Self.block, by: communicator.size))
        var covariance = [Double](repeating: 0, count: D * D)
        try communicator.collectively("reading features") {
            try covariance.withUnsafeMutableBufferPointer { covariance in
                let target = covariance.baseAddress!
                try Processor.concurrently(blocks.count) { index in
                    let first = blocks[index] * Self.block
                    try Self.addProducts(
                        features, mean, rows: first..<min(first + Self.block, D), into: target + first * D)
                }
            }
        }
        try communicator.allReduceSum(&covariance)
        for i in 0..<D {
            for j in i..<D {
                let value = covariance[i * D + j] / Double(N - 1)
                covariance[i * D + j] = value
                covariance[j * D + i] = value
            }
        }
        self.init(count: N, mean: mean, covariance: covariance)
    }

    /// Rows of the covariance per task, and images that are centred at once.
    private static let block = 128
    private static let chunk = 256

    private static func mean(_ features: FeatureMatrix) throws -> [Double] {
        let (N, D) = (features.count, features.dimension)
        var sum = [Double](repeating: 0, count: D)
        try features.forEachPart { _, values in
            for row in 0..<values.count / D { for i in 0..<D { sum[i] += Double(values[row * D + i]) } }
        }
        return sum.map { $0 / Double(N) }
    }

    /// Adds the rows' part of Σᵢ (fᵢ − μ)(fᵢ − μ)ᵀ to `target`, from the diagonal on.
    private static func addProducts(
        _ features: FeatureMatrix, _ mean: [Double], rows: Range<Int>,
        into target: UnsafeMutablePointer<Double>
    ) throws {
        let (N, D) = (features.count, features.dimension)
        for start in stride(from: 0, to: N, by: chunk) {
            var centred = try features.doubles(start..<min(start + chunk, N))
            let count = centred.count / D
            for row in 0..<count { for i in 0..<D { centred[row * D + i] -= mean[i] } }
            centred.withUnsafeBufferPointer { X in
                let from = X.baseAddress! + rows.lowerBound
                DenseMatrix.multiply(
                    from, rowLength: D, from, rowLength: D, transposed: (a: true, b: false), M: rows.count,
                    N: D - rows.lowerBound, K: count, beta: 1, into: target + rows.lowerBound, rowLength: D)
            }
        }
    }
}

extension FeatureStatistics {
    /// The squared Fréchet distance between two Gaussians, which for Inception features is FID (Heusel et
    /// al., 2017, eq. 6):
    ///
    ///     d² = |μ₁ − μ₂|² + tr Σ₁ + tr Σ₂ − 2 tr (Σ₁Σ₂)^½
    ///
    /// The last trace is the sum of the square roots of the eigenvalues of Σ₁^½ Σ₂ Σ₁^½, which is symmetric
    /// and positive semi-definite. This takes two symmetric eigendecompositions, which also exist for
    /// singular covariances, unlike the square root of the product.
    ///
    /// - Returns: nil if a value is not finite.
    package func frechetDistance(to other: FeatureStatistics) -> Double? {
        precondition(dimension == other.dimension, "features of \(dimension) and \(other.dimension) values")
        let D = dimension
        guard let own = DenseMatrix.symmetricEigen(covariance, size: D, vectors: true) else { return nil }
        // The eigenvectors are the rows of V: Σ₁ = Vᵀ diag(λ) V.
        var scaled = own.vectors
        for row in 0..<D {
            let factor = max(0, own.values[row]).squareRoot()
            for i in 0..<D { scaled[row * D + i] *= factor }
        }
        // diag(√λ) V Σ₂ Vᵀ diag(√λ) is similar to Σ₁^½ Σ₂ Σ₁^½: it has the same eigenvalues but takes two
        // products instead of three.
        let right = DenseMatrix.product(scaled, other.covariance, size: D)
        var middle = DenseMatrix.product(right, DenseMatrix.transposed(scaled, size: D), size: D)
        for i in 0..<D {
            for j in i..<D {
                let value = 0.5 * (middle[i * D + j] + middle[j * D + i])
                (middle[i * D + j], middle[j * D + i]) = (value, value)
            }
        }
        guard let eigen = DenseMatrix.symmetricEigen(middle, size: D, vectors: false) else { return nil }
        let root = eigen.values.reduce(0) { $0 + max(0, $1).squareRoot() }
        var distance = 0.0
        for i in 0..<D {
            let difference = mean[i] - other.mean[i]
            distance +=
                difference * difference + covariance[i * (D + 1)] + other.covariance[i * (D + 1)]
        }
        return distance - 2 * root
    }
}

extension FeatureStatistics {
    /// Whether a path is an .npz file of statistics, or a damaged one, rather than of images.
    package static func areIn(_ path: String) -> Bool {
        guard path.hasSuffix(".npz"), FileManager.default.fileExists(atPath: path) else { return false }
        return (try? NumpyArchive(path))?.isStatistics ?? true
    }

    /// Reads `mu` [D] and `sigma` [D, D] from an .npz file, as written by pytorch-fid (`--save-stats`) and
    /// clean-fid. The file does not contain the number of images.
    ///
    /// - Throws: an error with a one-line message.
    package init(npz path: String) throws {
        let archive = try NumpyArchive(path)
        let (mu, sigma) = (try archive.array("mu"), try archive.array("sigma"))
        let D = mu.values.count
        guard mu.shape.count == 1, (1...8192).contains(D), sigma.shape == [D, D] else {
            throw StatisticsError(path, "mu is \(mu.shape) and sigma \(sigma.shape), expected [D] and [D, D]")
        }
        guard mu.values.allSatisfy(\.isFinite), sigma.values.allSatisfy(\.isFinite) else {
            throw StatisticsError(path, "holds values that are NaN or infinite")
        }
        let largest = sigma.values.reduce(0) { max($0, abs($1)) }
        for i in 0..<D {
            for j in 0..<i where abs(sigma.values[i * D + j] - sigma.values[j * D + i]) > 1e-6 * largest {
                throw StatisticsError(path, "sigma is not symmetric, expected a covariance")
            }
        }
        self.init(count: 0, mean: mu.values, covariance: sigma.values)
    }
}
