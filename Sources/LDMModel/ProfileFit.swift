/// The sum of stored profiles that is nearest to a wanted one: Σ xᵢ pᵢ ≈ p, by least squares over all of the training.
///
/// With Aᵢⱼ = ∫ pᵢ pⱼ and bᵢ = ∫ pᵢ p, in double, A x = b + λ 1, where λ makes Σ xᵢ = 1. Weights are linear in their
/// profiles, so the same sum of stored averages is the wanted average, as nearly as the profiles agree.
///
/// Source: Karras et al. 2024, appendix C.3, which has no λ. Without it a fit to few snapshots multiplies all weights by
/// a Σ xᵢ of 0.95, say; with it, what stays the same during the training, as most of the weights of a short one, is met
/// however few there are. With many snapshots λ vanishes.
package struct ProfileFit: Sendable {
    /// One for each stored profile.
    package let factors: [Double]
    /// ‖Σ xᵢ pᵢ − p‖ / ‖p‖: 0 where the profile is met.
    package let residual: Double

    package init(_ wanted: PowerProfile, from stored: [PowerProfile]) {
        // Profiles of length 1, so that early ones, which are narrow and high, do not rule the sums.
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
        // Without λ, 1 − x·b is left of ‖p − Σ xᵢ pᵢ‖²; λ adds what is orthogonal to it. To some 1e-16 in the square.
        residual = (max(0, 1 - Self.dot(nearest, target)) + lambda * lambda * size).squareRoot()
    }

    private static func dot(_ a: [Double], _ b: [Double]) -> Double {
        zip(a, b).reduce(0) { $0 + $1.0 * $1.1 }
    }

    /// Solves a symmetric, positive definite system by Cholesky's decomposition. A row that depends on those before it to
    /// rounding is left out: its unknown is 0.
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
