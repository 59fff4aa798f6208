import Foundation

/// Spherical interpolation between two noise vectors with weight `t` from 0 to 1:
///
///     sin((1-t)θ)/sin θ · a + sin(tθ)/sin θ · b
///
/// where θ is the angle between a and b. Normally distributed noise lies near a sphere, and linear
/// interpolation would leave it.
///
/// Source: Shoemake 1985, "Animating Rotation with Quaternion Curves"; for diffusion models Song, Meng and
/// Ermon 2021 (arXiv 2010.02502), appendix D.5.
package func slerp(_ a: [Float], _ b: [Float], _ t: Double) -> [Float] {
    precondition(a.count == b.count, "vectors of \(a.count) and \(b.count) values")
    if t <= 0 { return a }
    if t >= 1 { return b }
    var (dot, aa, bb) = (0.0, 0.0, 0.0)
    for i in a.indices {
        let (x, y) = (Double(a[i]), Double(b[i]))
        dot += x * y
        aa += x * x
        bb += y * y
    }
    let cosine = max(-1, min(1, dot / max((aa * bb).squareRoot(), .leastNormalMagnitude)))
    let angle = acos(cosine)
    // Interpolate linearly if the vectors are parallel, where this equals the arc, or opposite, where the arc
    // is not unique.
    let isArc = sin(angle) > 1e-6
    let left = isArc ? sin((1 - t) * angle) / sin(angle) : 1 - t
    let right = isArc ? sin(t * angle) / sin(angle) : t
    return a.indices.map { Float(left * Double(a[$0]) + right * Double(b[$0])) }
}
