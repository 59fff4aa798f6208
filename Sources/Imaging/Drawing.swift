/// A drawing surface for charts: anti-aliased lines, frames and text. Positions are in pixels from the top
/// left.
struct Drawing {
    let width: Int
    let height: Int
    private var pixels: [Color]

    init(width: Int, height: Int, background: Color) {
        precondition(width > 0 && height > 0)
        self.width = width
        self.height = height
        pixels = [Color](repeating: background, count: width * height)
    }

    /// Draws polylines through each stroke's points, `thickness` pixels wide, with round caps. Overlapping
    /// strokes of one call do not darken each other, so a translucent line does not show its
    /// self-intersections. Points that are not finite interrupt the line.
    ///
    /// - Parameter clip: clips the drawing to this frame.
    mutating func stroke(
        _ strokes: [[SIMD2<Double>]], thickness: Double, color: Color, opacity: Float = 1, clip: Frame? = nil
    ) {
        let bounds = clip ?? Frame(x: 0, y: 0, width: Double(width), height: Double(height))
        var mask = [Float](repeating: 0, count: width * height)
        let reach = thickness / 2 + 0.5
        let minX = max(0, Int(bounds.x.rounded()))
        let minY = max(0, Int(bounds.y.rounded()))
        let maxX = min(width, Int(bounds.right.rounded())) - 1
        let maxY = min(height, Int(bounds.bottom.rounded())) - 1
        var touched = (low: height, high: -1)
        for points in strokes {
            for index in points.indices {
                let a = points[index]
                let b = points[min(index + 1, points.count - 1)]
                if index == points.count - 1 && points.count > 1 { break }
                guard a.x.isFinite, a.y.isFinite, b.x.isFinite, b.y.isFinite else { continue }
                // Clamp as Double first: the Int conversion of a coordinate far outside would overflow.
                let firstX = Int(
                    min(max((min(a.x, b.x) - reach).rounded(.down), Double(minX)), Double(width)))
                let firstY = Int(
                    min(max((min(a.y, b.y) - reach).rounded(.down), Double(minY)), Double(height)))
                let lastX = Int(max(min((max(a.x, b.x) + reach).rounded(.up), Double(maxX)), -1))
                let lastY = Int(max(min((max(a.y, b.y) + reach).rounded(.up), Double(maxY)), -1))
                guard firstX <= lastX, firstY <= lastY else { continue }
                touched = (min(touched.low, firstY), max(touched.high, lastY))
                let along = b - a
                let squared = max((along * along).sum(), 1e-12)
                for y in firstY...lastY {
                    for x in firstX...lastX {
                        let from = SIMD2(Double(x) + 0.5, Double(y) + 0.5) - a
                        let t = min(max((from * along).sum() / squared, 0), 1)
                        let away = from - along * t
                        let distance = (away * away).sum().squareRoot()
                        let coverage = Float(min(max(reach - distance, 0), min(1, thickness)))
                        if coverage > mask[y * width + x] { mask[y * width + x] = coverage }
                    }
                }
            }
        }
        guard touched.low <= touched.high else { return }
        for index in touched.low * width..<(touched.high + 1) * width where mask[index] > 0 {
            pixels[index] = mix(pixels[index], color, mask[index] * opacity)
        }
    }

    /// Fills a rectangle.
    mutating func fill(_ frame: Frame, color: Color, opacity: Float = 1) {
        let columns = max(0, Int(frame.x.rounded()))..<max(0, min(width, Int(frame.right.rounded())))
        for y in max(0, Int(frame.y.rounded()))..<max(0, min(height, Int(frame.bottom.rounded()))) {
            for x in columns { pixels[y * width + x] = mix(pixels[y * width + x], color, opacity) }
        }
    }

    enum Alignment { case left, center, right }

    /// Draws one line of text.
    ///
    /// - Parameters:
    ///   - at: the anchor: the text's left end, center or right end, at half the cap height.
    ///   - size: cap height in pixels.
    ///   - upwards: rotate by 90 degrees, to read from bottom to top.
    mutating func text(
        _ text: String, at: SIMD2<Double>, size: Double, color: Color, alignment: Alignment = .left,
        bold: Bool = false, upwards: Bool = false
    ) {
        let (strokes, width) = StrokeFont.layout(text, capHeight: size)
        let start =
            switch alignment {
            case .left: 0.0
            case .center: -width / 2
            case .right: -width
            }
        let placed = strokes.map { stroke in
            stroke.map { point -> SIMD2<Double> in
                let offset = point + SIMD2(start, -size / 2)
                return at + (upwards ? SIMD2(offset.y, -offset.x) : offset)
            }
        }
        stroke(placed, thickness: size * (bold ? 0.19 : 0.125), color: color)
    }

    var image: Image {
        var bytes = [UInt8](repeating: 0, count: 3 * width * height)
        for index in pixels.indices {
            for c in 0..<3 {
                bytes[3 * index + c] = UInt8(min(max(pixels[index][c] * 255, 0), 255).rounded())
            }
        }
        return Image(width: width, height: height, pixels: bytes)
    }
}

/// A rectangle in pixels.
struct Frame {
    var x: Double
    var y: Double
    var width: Double
    var height: Double
    var right: Double { x + width }
    var bottom: Double { y + height }
}
