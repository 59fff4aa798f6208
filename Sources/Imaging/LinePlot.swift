import Foundation

/// A chart of curves over a common x axis, such as losses over steps.
///
///     LinePlot(title: "Training loss", xLabel: "step", yLabel: "loss",
///              series: [.init("unet_tiny", points: losses, smooth: true)], logY: true)
///         .render(width: 960, height: 540)
package struct LinePlot: Sendable {
    package struct Series: Sendable {
        package let name: String
        /// Points in order of x. Values that are not finite (or not positive, on a logarithmic axis) leave a
        /// gap.
        package let points: [(x: Double, y: Double)]
        /// Whether to draw the points faintly, with a smoothed curve on top.
        package let smooth: Bool

        package init(_ name: String, points: [(x: Double, y: Double)], smooth: Bool = false) {
            (self.name, self.points, self.smooth) = (name, points, smooth)
        }
    }

    package let title: String
    package let xLabel: String
    package let yLabel: String
    package let series: [Series]
    package let logY: Bool
    /// Use a linear y axis that starts at 0, for positive values.
    package let startsAtZero: Bool

    package init(
        title: String, xLabel: String, yLabel: String, series: [Series], logY: Bool = false,
        startsAtZero: Bool = false
    ) {
        (self.startsAtZero, self.title, self.xLabel) = (startsAtZero, title, xLabel)
        (self.yLabel, self.series, self.logY) = (yLabel, series, logY)
    }

    /// Draws the chart. Below about 240 by 160 pixels the labels do not fit.
    package func render(width: Int = 960, height: Int = 540) -> Image {
        let curves = series.map { PlotCurve($0, logY: logY) }
        let text = max(7, Double(height) / 54)
        let (xAxis, yAxis) = axes(curves, xTicks: max(3, width / 110), yTicks: max(3, height / 70))

        let labelWidth = yAxis.ticks.map { StrokeFont.layout($0.label, capHeight: text).width }.max() ?? 0
        let left = labelWidth + text * (yLabel.isEmpty ? 2 : 4.6)
        let top = text * (title.isEmpty ? 1.6 : 4.2)
        let bottom = text * (xLabel.isEmpty ? 3 : 5.4)
        let frame = Frame(
            x: left.rounded(), y: top.rounded(), width: max(1, (Double(width) - left - text * 2.2).rounded()),
            height: max(1, (Double(height) - top - bottom).rounded()))

        var drawing = Drawing(width: width, height: height, background: Color(1, 1, 1))
        drawAxes(&drawing, frame, xAxis, yAxis, text)
        // Draw all raw points first, so that they do not hide smoothed curves.
        for (index, curve) in curves.enumerated() where curve.smoothed != nil {
            draw(&drawing, curve.points, frame, xAxis, yAxis, text * 0.12, Self.color(index), opacity: 0.28)
        }
        for (index, curve) in curves.enumerated() {
            draw(
                &drawing, curve.smoothed ?? curve.points, frame, xAxis, yAxis, text * 0.24, Self.color(index))
        }
        drawLegend(&drawing, frame, text)
        return drawing.image
    }

    /// The two axes with approximately the given number of ticks.
    package func axes(_ curves: [PlotCurve], xTicks: Int, yTicks: Int) -> (x: PlotAxis, y: PlotAxis) {
        let xAxis = PlotAxis.linear(curves.xRange, ticks: xTicks)
        if logY { return (xAxis, PlotAxis.logarithmic(curves.yRange, ticks: yTicks)) }
        let range = curves.yRange
        let isFromZero = startsAtZero && range.lowerBound >= 0
        return (
            xAxis,
            isFromZero
                ? PlotAxis.linear(0...range.upperBound * 1.06, ticks: yTicks)
                : PlotAxis.linear(range, ticks: yTicks, margin: 0.04)
        )
    }

    private static let ink = Color(0.16, 0.18, 0.22)
    private static let palette = [
        Color(0.12, 0.40, 0.76), Color(0.89, 0.42, 0.10), Color(0.10, 0.58, 0.36), Color(0.76, 0.18, 0.30),
        Color(0.48, 0.32, 0.70), Color(0.10, 0.58, 0.66), Color(0.62, 0.46, 0.10), Color(0.38, 0.42, 0.48),
    ]

    private static func color(_ index: Int) -> Color { palette[index % palette.count] }

    private func drawAxes(
        _ drawing: inout Drawing, _ frame: Frame, _ xAxis: PlotAxis, _ yAxis: PlotAxis, _ text: Double
    ) {
        let grid = Color(0.90, 0.91, 0.93)
        let label = Color(0.36, 0.39, 0.44)
        for tick in xAxis.ticks {
            // Align to pixel centers, so that one-pixel lines are sharp.
            let x = (frame.x + xAxis.place(tick.value) * frame.width).rounded() + 0.5
            drawing.stroke([[SIMD2(x, frame.y), SIMD2(x, frame.bottom)]], thickness: 1, color: grid)
            drawing.text(
                tick.label, at: SIMD2(x, frame.bottom + text * 1.5), size: text, color: label,
                alignment: .center)
        }
        for tick in yAxis.ticks {
            let y = (frame.bottom - yAxis.place(tick.value) * frame.height).rounded() + 0.5
            drawing.stroke([[SIMD2(frame.x, y), SIMD2(frame.right, y)]], thickness: 1, color: grid)
            drawing.text(
                tick.label, at: SIMD2(frame.x - text * 0.8, y), size: text, color: label, alignment: .right)
        }
        let corner = SIMD2(frame.x + 0.5, frame.bottom + 0.5)
        drawing.stroke(
            [[SIMD2(corner.x, frame.y), corner, SIMD2(frame.right, corner.y)]], thickness: 1.2,
            color: Color(0.55, 0.58, 0.62))
        let middle = SIMD2(frame.x + frame.width / 2, frame.y + frame.height / 2)
        drawing.text(
            title, at: SIMD2(frame.x, text * 2.2), size: text * 1.35, color: Self.ink, bold: true)
        drawing.text(
            xLabel, at: SIMD2(middle.x, Double(drawing.height) - text * 1.6), size: text * 1.05,
            color: Self.ink,
            alignment: .center)
        drawing.text(
            yLabel, at: SIMD2(text * 1.6, middle.y), size: text * 1.05, color: Self.ink, alignment: .center,
            upwards: true)
    }

    private func draw(
        _ drawing: inout Drawing, _ points: [SIMD2<Double>], _ frame: Frame, _ xAxis: PlotAxis,
        _ yAxis: PlotAxis,
        _ thickness: Double, _ color: Color, opacity: Float = 1
    ) {
        let placed = points.map {
            SIMD2(frame.x + xAxis.place($0.x) * frame.width, frame.bottom - yAxis.place($0.y) * frame.height)
        }
        drawing.stroke([placed], thickness: max(1, thickness), color: color, opacity: opacity, clip: frame)
    }

    /// Draws the legend at the top right, where decreasing losses leave space; none if all series are
    /// unnamed.
    private func drawLegend(_ drawing: inout Drawing, _ frame: Frame, _ text: Double) {
        guard series.contains(where: { !$0.name.isEmpty }) else { return }
        let widest = series.map { StrokeFont.layout($0.name, capHeight: text).width }.max() ?? 0
        let line = text * 2.1
        let box = Frame(
            x: frame.right - widest - text * 5.2, y: frame.y + text, width: widest + text * 4.6,
            height: line * Double(series.count) + text * 0.8)
        drawing.fill(box, color: Color(1, 1, 1), opacity: 0.85)
        for (index, series) in series.enumerated() {
            let y = box.y + text * 0.4 + line * (Double(index) + 0.5)
            drawing.stroke(
                [[SIMD2(box.x + text * 0.8, y), SIMD2(box.x + text * 2.6, y)]],
                thickness: max(1.5, text * 0.3),
                color: Self.color(index))
            drawing.text(series.name, at: SIMD2(box.x + text * 3.4, y), size: text, color: Self.ink)
        }
    }
}
