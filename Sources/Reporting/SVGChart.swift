import Foundation
import Imaging

/// A chart for a web page: curves as an inline SVG that scales to any width, with tick marks and labels as
/// text on top, so that they stay readable on a phone.
struct SVGChart {
    private let chart: ReportChart
    private let say: ReportLanguage
    private let curves: [PlotCurve]
    private let x: PlotAxis
    private let y: PlotAxis

    /// Width and height of the SVG's coordinate system, which the page stretches.
    private static let extent = 1000.0
    /// Raw points are reduced to the minimum and maximum of each of this many intervals.
    private static let intervals = 400

    init(_ chart: ReportChart, _ say: ReportLanguage) {
        self.chart = chart
        self.say = say
        curves = chart.series.map { PlotCurve($0, logY: chart.isLogarithmic) }
        (x, y) = chart.plot.axes(curves, xTicks: 5, yTicks: 5)
    }

    var html: String {
        let grid =
            y.ticks.map { line(0, top($0.value), Self.extent, top($0.value)) }
            + x.ticks.map { line(left($0.value), 0, left($0.value), Self.extent) }
        let raw = curves.enumerated().compactMap { index, curve in
            curve.smoothed == nil
                ? nil : path(thinned(curve.points), "raw s\(index % 8)")
        }
        let lines = curves.enumerated().map { index, curve in
            path(
                curve.smoothed ?? thinned(curve.points), "s\(index % 8)\(index >= 8 ? " dashed" : "")")
        }
        let marks =
            y.ticks.map { tick in
                "<span class=\"y\" style=\"top:\(decimal(top(tick.value) / 10))%\">\(escaped(tick.label))</span>"
            }
            + x.ticks.map { tick in
                "<span class=\"x\" style=\"left:\(decimal(left(tick.value) / 10))%\">\(escaped(tick.label))</span>"
            }
        return """
            <figure class="chart"><figcaption>\(escaped(chart.title))\(scale)</figcaption>
            <div class="plot"><svg viewBox="0 0 1000 1000" preserveAspectRatio="none" role="img" \
            aria-label="\(escaped(words))"><g class="grid">\(grid.joined())</g>\(raw.joined())\(lines.joined())</svg>
            \(marks.joined())<span class="x-name">\(escaped(chart.xName ?? say("step", "ステップ")))</span></div>
            \(legend)</figure>
            """
    }

    private var scale: String {
        chart.isLogarithmic ? "<small>\(say("logarithmic", "対数軸"))</small>" : ""
    }

    private var legend: String {
        let isSmoothed = curves.contains { $0.smoothed != nil }
        let note =
            isSmoothed
            ? "<li class=\"note\">\(say("faint: logged; bold: smoothed", "淡い線: 記録値、濃い線: 平滑化"))</li>" : ""
        guard chart.series.count > 1 else { return note.isEmpty ? "" : "<ul class=\"legend\">\(note)</ul>" }
        let names = chart.series.enumerated().map { index, series in
            "<li><i class=\"c\(index % 8)\(index >= 8 ? " dashed" : "")\"></i>\(escaped(series.name))</li>"
        }
        return "<ul class=\"legend\">\(names.joined())\(note)</ul>"
    }

    /// Alternative text of the chart for screen readers.
    private var words: String {
        chart.title + ": "
            + chart.series.compactMap { series -> String? in
                guard let first = series.points.first, let last = series.points.last else { return nil }
                return "\(series.name) \(say.number(first.y)) → \(say.number(last.y))"
            }.joined(separator: "; ")
    }

    // MARK: Geometry

    private func left(_ value: Double) -> Double { x.place(value) * Self.extent }
    private func top(_ value: Double) -> Double { (1 - y.place(value)) * Self.extent }

    private func line(_ x1: Double, _ y1: Double, _ x2: Double, _ y2: Double) -> String {
        "<line x1=\"\(decimal(x1))\" y1=\"\(decimal(y1))\" x2=\"\(decimal(x2))\" y2=\"\(decimal(y2))\"/>"
    }

    /// An SVG path of the points; points that are not finite interrupt it.
    private func path(_ points: [SIMD2<Double>], _ classes: String) -> String {
        var text = ""
        var isOpen = false
        for point in points {
            let place = SIMD2(left(point.x), top(point.y))
            guard place.x.isFinite, place.y.isFinite else {
                isOpen = false
                continue
            }
            // Clamp coordinates far outside the frame: they carry no information, and some viewers fail on
            // them.
            let height = min(max(place.y, -Self.extent), 2 * Self.extent)
            text += "\(isOpen ? "L" : "M")\(decimal(place.x)) \(decimal(height))"
            isOpen = true
        }
        return text.isEmpty ? "" : "<path class=\"\(classes)\" d=\"\(text)\"/>"
    }

    /// The minimum and maximum of each interval, in their original order, which looks like the full curve.
    private func thinned(_ points: [SIMD2<Double>]) -> [SIMD2<Double>] {
        guard points.count > 2 * Self.intervals else { return points }
        return (0..<Self.intervals).flatMap { interval -> [SIMD2<Double>] in
            let part = points[
                (interval * points.count / Self.intervals)..<((interval + 1) * points.count / Self.intervals)]
            let finite = part.indices.filter { points[$0].y.isFinite }
            guard let low = finite.min(by: { points[$0].y < points[$1].y }),
                let high = finite.max(by: { points[$0].y < points[$1].y })
            else { return [SIMD2(.nan, .nan)] }
            return low == high ? [points[low]] : [points[min(low, high)], points[max(low, high)]]
        }
    }

    /// Formats with one decimal, which is below one pixel.
    private func decimal(_ value: Double) -> String {
        let text = String(format: "%.1f", value)
        return text.hasSuffix(".0") ? String(text.dropLast(2)) : text
    }
}
