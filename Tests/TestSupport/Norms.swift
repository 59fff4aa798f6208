/// ‖a − b‖ / ‖b‖; infinite if counts differ or a value is not finite.
///
/// - Parameter floor: lower bound of the denominator.
package func relativeNorm(_ a: [Float], _ b: [Float], floor: Double = 0) -> Double {
    guard a.count == b.count, a.allSatisfy(\.isFinite) else { return .infinity }
    let difference = zip(a, b).reduce(0.0) {
        $0 + (Double($1.0) - Double($1.1)) * (Double($1.0) - Double($1.1))
    }
    return difference.squareRoot() / max(norm(b), floor, .leastNormalMagnitude)
}

/// ‖a‖
package func norm(_ a: [Float]) -> Double { a.reduce(0.0) { $0 + Double($1) * Double($1) }.squareRoot() }
