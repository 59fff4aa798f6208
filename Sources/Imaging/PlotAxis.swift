import Foundation

/// One axis of a chart: maps values to positions, and selects the ticks.
package struct PlotAxis {
    private let range: ClosedRange<Double>
    private let isLogarithmic: Bool
    package private(set) var ticks: [(value: Double, label: String)] = []

    /// - Parameters:
    ///   - ticks: approximate number of ticks.
    ///   - margin: space beyond the data at both ends, as a fraction of the range.
    package static func linear(_ range: ClosedRange<Double>, ticks: Int, margin: Double = 0) -> PlotAxis {
        let span = range.upperBound - range.lowerBound
        var axis = PlotAxis(
            range: range.lowerBound - margin * span...range.upperBound + margin * span, isLogarithmic: false)
        axis.ticks = niceValues(axis.range, count: ticks).map { ($0.value, label($0.value, step: $0.step)) }
        return axis
    }

    /// The range must be positive.
    package static func logarithmic(_ range: ClosedRange<Double>, ticks: Int) -> PlotAxis {
        let grow = pow(range.upperBound / range.lowerBound, 0.04)
        var axis = PlotAxis(range: range.lowerBound / grow...range.upperBound * grow, isLogarithmic: true)
        let decades = log10(axis.range.upperBound / axis.range.lowerBound)
        if decades < 1 {
            // Powers of ten would be too few ticks.
            axis.ticks = niceValues(axis.range, count: ticks).map {
                ($0.value, label($0.value, step: $0.step))
            }
            return axis
        }
        let digits: [Double] = decades < 2 ? [1, 2, 3, 5, 7] : decades < 4 ? [1, 2, 5] : [1]
        let every = max(1, Int((decades / Double(2 * ticks)).rounded(.up)))
        let first = Int(log10(axis.range.lowerBound).rounded(.down))
        let last = Int(log10(axis.range.upperBound).rounded(.up))
        for exponent in stride(from: first, through: last, by: every) {
            for digit in digits {
                let value = digit * pow(10, Double(exponent))
                if axis.range.contains(value) { axis.ticks.append((value, label(value, step: value))) }
            }
        }
        return axis
    }

    /// The value's relative position, 0 at the lower end and 1 at the upper end.
    package func place(_ value: Double) -> Double {
        isLogarithmic
            ? log(value / range.lowerBound) / log(range.upperBound / range.lowerBound)
            : (value - range.lowerBound) / (range.upperBound - range.lowerBound)
    }

    private init(range: ClosedRange<Double>, isLogarithmic: Bool) {
        self.range = range
        self.isLogarithmic = isLogarithmic
    }

    /// Multiples of 1, 2 or 5 times a power of ten.
    private static func niceValues(_ range: ClosedRange<Double>, count: Int) -> [(
        value: Double, step: Double
    )] {
        let rough = (range.upperBound - range.lowerBound) / Double(count)
        guard rough > 0, rough.isFinite else { return [] }
        let power = pow(10, floor(log10(rough)))
        let step = [1, 2, 5, 10].map { $0 * power }.first { $0 >= rough * 0.999 } ?? 10 * power
        let first = (range.lowerBound / step - 1e-9).rounded(.up)
        let last = (range.upperBound / step + 1e-9).rounded(.down)
        guard last >= first, last - first < 1000 else { return [] }
        return stride(from: first, through: last, by: 1).map { ($0 * step, step) }
    }

    /// The shortest label that the step allows: 0.25, 12, 15k, 2.5M, 1e-6.
    private static func label(_ value: Double, step: Double) -> String {
        if value == 0 { return "0" }
        let size = abs(value)
        if size < 1e-3 || size >= 1e9 { return String(format: "%g", (value / step).rounded() * step) }
        for (unit, name) in [(1e6, "M"), (1e3, "k")] where size >= unit && (unit > 1e3 || size >= 1e4) {
            return String(format: "%g", (value / unit * 1e4).rounded() / 1e4) + name
        }
        let decimals = max(0, -Int(floor(log10(step) + 1e-9)))
        return String(format: "%.\(decimals)f", value)
    }
}

/// A series prepared for drawing: values that cannot be shown are NaN.
package struct PlotCurve {
    package let points: [SIMD2<Double>]
    package let smoothed: [SIMD2<Double>]?

    package init(_ series: LinePlot.Series, logY: Bool) {
        points = series.points.map { point in
            // Above 1e100 the axis arithmetic would overflow; such losses are not worth showing.
            let inside = abs(point.x) < 1e100 && abs(point.y) < 1e100
            let visible = inside && (!logY || point.y > 1e-100)
            return visible ? SIMD2(point.x, point.y) : SIMD2(.nan, .nan)
        }
        smoothed = series.smooth ? Self.smooth(points.filter { $0.x.isFinite }, logY: logY) : nil
    }

    /// A local linear fit with Gaussian weights, which has no lag, after binning to at most 1000 points. On a
    /// logarithmic axis it averages logarithms.
    private static func smooth(_ points: [SIMD2<Double>], logY: Bool) -> [SIMD2<Double>] {
        guard points.count > 2 else { return points }
        let values = logY ? points.map { SIMD2($0.x, log($0.y)) } : points
        let bins = min(1000, values.count)
        let binned = (0..<bins).map { bin -> SIMD2<Double> in
            let part = values[(bin * values.count / bins)..<((bin + 1) * values.count / bins)]
            return part.reduce(SIMD2(0, 0), +) / Double(part.count)
        }
        let sigma = max(0.8, Double(bins) / 70)
        let reach = Int((3 * sigma).rounded(.up))
        return binned.indices.map { center in
            // The value at the center of a line fitted to the neighbors. At the ends, where all neighbors are
            // on one side, a weighted mean would bend the curve towards them.
            var (w, wz, wzz, wy, wzy) = (0.0, 0.0, 0.0, 0.0, 0.0)
            for index in max(0, center - reach)...min(bins - 1, center + reach) {
                let z = Double(index - center) / sigma
                let weight = exp(-z * z / 2)
                w += weight
                wz += weight * z
                wzz += weight * z * z
                wy += weight * binned[index].y
                wzy += weight * z * binned[index].y
            }
            let y = (wzz * wy - wz * wzy) / (w * wzz - wz * wz)
            return SIMD2(binned[center].x, logY ? exp(y) : y)
        }
    }
}

extension [PlotCurve] {
    /// The range of x; 0 to 1 if there are no points.
    package var xRange: ClosedRange<Double> { Self.widened(flatMap(\.points).map(\.x).filter(\.isFinite)) }

    /// The range of y. It covers all points of a plain curve; for a smoothed curve, rare spikes are excluded.
    package var yRange: ClosedRange<Double> {
        Self.widened(
            flatMap { curve -> [Double] in
                let values = curve.points.map(\.y).filter(\.isFinite)
                guard let smoothed = curve.smoothed, values.count > 50 else { return values }
                let sorted = values.sorted()
                return smoothed.map(\.y) + [
                    sorted[values.count / 200], sorted[values.count - 1 - values.count / 100],
                ]
            })
    }

    private static func widened(_ values: [Double]) -> ClosedRange<Double> {
        guard let low = values.min(), let high = values.max() else { return 0.1...1 }
        if high - low > 1e-12 * Swift.max(abs(low), abs(high)) { return low...high }
        return low > 0 ? low * 0.9...low * 1.1 : low - 1...low + 1
    }
}
