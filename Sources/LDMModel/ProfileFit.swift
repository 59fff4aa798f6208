/// The linear combination of stored profiles that best approximates a target profile: Σ xᵢ pᵢ ≈ p, in the
/// least-squares sense over the whole training.
///
/// With Aᵢⱼ = ∫ pᵢ pⱼ and bᵢ = ∫ pᵢ p, in double precision, A x = b + λ 1, where λ enforces Σ xᵢ = 1.
/// Averages of weights are linear in their profiles, so the same combination of stored averages approximates
/// the target average to the same accuracy.
///
/// Source: Karras et al. 2024, appendix C.3, which has no λ. Without it, a fit to few snapshots scales all
/// weights by Σ xᵢ, for example 0.95. With it, weights that do not change during training (most weights of a
/// short run) are exact for any number of snapshots. With many snapshots λ vanishes.
package struct ProfileFit: Sendable {
    /// One factor per stored profile.
    package let factors: [Double]
    /// ‖Σ xᵢ pᵢ − p‖ / ‖p‖: 0 if the fit is exact.
    package let residual: Double

    package init(_ wanted: PowerProfile, from stored: [PowerProfile]) {
        // Normalize the profiles, so that early ones, which are narrow and high, do not dominate.
        let lengths = stored.map { $0.product($0).squareRoot() }
        let matrix = stored.indices.map { i in
            (0...i).map { j in stored[i].product(stored[j]) / (lengths[i] * lengths[j]) }
        }
        let length = wanted.product(wanted).squareRoot()
        let target = stored.indices.map { stored[$0].product(wanted) / (lengths[$0] * length) }
        let ones = lengths.map { length / $0 }
        let nearest = Self.solve(matrix, target)
        let shift = Self.solve(matrix, ones)
        let size = Self.dot(shift, ones)
        let lambda = (1 - Self.dot(nearest, ones)) / size
        factors = stored.indices.map { (nearest[$0] + lambda * shift[$0]) * ones[$0] }
        // Without λ, ‖p − Σ xᵢ pᵢ‖² is 1 − x·b; the contribution of λ is orthogonal to it. The error of the
        // square is about 1e-16.
        residual = (max(0, 1 - Self.dot(nearest, target)) + lambda * lambda * size).squareRoot()
    }

    private static func dot(_ a: [Double], _ b: [Double]) -> Double {
        zip(a, b).reduce(0) { $0 + $1.0 * $1.1 }
    }

    /// Solves a symmetric positive definite system by Cholesky decomposition. A row that is linearly
    /// dependent on earlier ones up to rounding is skipped, and its unknown is 0.
    ///
    /// - Parameter matrix: its lower triangle, row by row, with ones on the diagonal.
    private static func solve(_ matrix: [[Double]], _ target: [Double]) -> [Double] {
        var lower = matrix
        var isUsed = [Bool](repeating: true, count: matrix.count)
        var x = target
        for i in lower.indices {
            for j in 0..<i {
                guard isUsed[j] else {
                    lower[i][j] = 0
                    continue
                }
                let known = (0..<j).reduce(0) { $0 + lower[i][$1] * lower[j][$1] }
                lower[i][j] = (lower[i][j] - known) / lower[j][j]
            }
            let pivot = lower[i][i] - lower[i].dropLast().reduce(0) { $0 + $1 * $1 }
            isUsed[i] = pivot > 1e-13
            lower[i][i] = isUsed[i] ? pivot.squareRoot() : 1
            x[i] = isUsed[i] ? (x[i] - (0..<i).reduce(0) { $0 + lower[i][$1] * x[$1] }) / lower[i][i] : 0
        }
        for i in lower.indices.reversed() {
            let known = (i + 1..<lower.count).reduce(0) { $0 + lower[$1][i] * x[$1] }
            x[i] = isUsed[i] ? (x[i] - known) / lower[i][i] : 0
        }
        return x
    }
}
