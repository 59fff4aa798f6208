/// Red, green and blue, each in [0, 1].
package typealias Color = SIMD3<Float>

/// A point or a vector.
package typealias Point = SIMD2<Float>

/// An axis-aligned rectangle.
package struct Box {
    package var low: Point
    package var high: Point

    /// The box with this center and half extents.
    package init(_ center: Point, _ half: Point) {
        low = center - half
        high = center + half
    }
}

/// A square drawing surface for shapes given by signed distance functions. Anti-aliasing uses the part of
/// each pixel that a shape covers, so the image size only affects sharpness.
///
/// Positions are in [-1, 1] over the surface, with y pointing down. Shapes are given in a frame that may be
/// translated, rotated and scaled relative to the surface.
package struct Canvas {
    package let size: Int
    private var pixels: [Color]
    /// The frame's origin on the surface, and its x axis, whose length is the scale.
    private var origin = Point(0, 0)
    private var axis = Point(1, 0)

    package init(size: Int) {
        self.size = size
        pixels = [Color](repeating: Color(repeating: 0), count: size * size)
    }

    /// Sets the frame in which shapes are given.
    ///
    /// - Parameter angle: in radians; must be small.
    package mutating func setFrame(origin: Point, angle: Float, scale: Float) {
        self.origin = origin
        // Taylor series for the sine: the angle is small, and the result must not depend on the host's libm.
        let sine = angle - angle * angle * angle / 6
        axis = Point((1 - sine * sine).squareRoot(), sine) * scale
    }

    /// Fills a shape.
    ///
    /// - Parameters:
    ///   - box: bounds of the shape, in the frame.
    ///   - soft: width of the edge's transition; at least one pixel.
    ///   - opacity: of the shape's interior.
    ///   - color: the color at a point.
    ///   - distance: the signed distance of a point to the shape's edge, negative inside.
    @inline(__always)
    package mutating func fill(
        _ box: Box, soft: Float = 0, opacity: Float = 1, color: (Point) -> Color, distance: (Point) -> Float
    ) {
        let scale = (axis.x * axis.x + axis.y * axis.y).squareRoot()
        let pixel = 2 / Float(size)
        let perWidth = 1 / max(soft, pixel / scale)
        let margin = 0.5 / perWidth

        // The pixels to visit are bounded by the box's corners on the surface.
        var low = Point(repeating: .infinity)
        var high = Point(repeating: -.infinity)
        for corner in [
            box.low, box.high, Point(box.low.x, box.high.y), Point(box.high.x, box.low.y),
        ] {
            let outward =
                corner
                + Point(corner.x < box.high.x ? -margin : margin, corner.y < box.high.y ? -margin : margin)
            let at =
                origin
                + Point(axis.x * outward.x - axis.y * outward.y, axis.y * outward.x + axis.x * outward.y)
            low = pointwiseMin(low, at)
            high = pointwiseMax(high, at)
        }
        let firstX = max(0, Int(((low.x + 1) / pixel - 0.5).rounded(.down)))
        let firstY = max(0, Int(((low.y + 1) / pixel - 0.5).rounded(.down)))
        let lastX = min(size - 1, Int(((high.x + 1) / pixel - 0.5).rounded(.up)))
        let lastY = min(size - 1, Int(((high.y + 1) / pixel - 0.5).rounded(.up)))
        guard firstX <= lastX, firstY <= lastY else { return }

        let inverse = axis / (scale * scale)
        let size = size
        let origin = origin
        pixels.withUnsafeMutableBufferPointer { pixels in
            for y in firstY...lastY {
                for x in firstX...lastX {
                    let from = Point((Float(x) + 0.5) * pixel - 1, (Float(y) + 0.5) * pixel - 1) - origin
                    let point = Point(
                        inverse.x * from.x + inverse.y * from.y, inverse.x * from.y - inverse.y * from.x)
                    let coverage = min(max(0.5 - distance(point) * perWidth, 0), 1)
                    if coverage > 0 {
                        // Use smoothstep for a soft edge; for a one-pixel edge, linear interpolation is the
                        // coverage.
                        let alpha = opacity * (soft > 0 ? coverage * coverage * (3 - 2 * coverage) : coverage)
                        let index = y * size + x
                        pixels[index] += (color(point) - pixels[index]) * alpha
                    }
                }
            }
        }
    }

    /// Fills a shape with one color.
    @inline(__always)
    package mutating func fill(
        _ box: Box, soft: Float = 0, opacity: Float = 1, _ color: Color, distance: (Point) -> Float
    ) {
        fill(box, soft: soft, opacity: opacity, color: { _ in color }, distance: distance)
    }

    /// Fills an ellipse with one color.
    package mutating func fillEllipse(
        _ center: Point, _ radii: Point, soft: Float = 0, opacity: Float = 1, _ color: Color
    ) {
        fill(Box(center, radii), soft: soft, opacity: opacity, color) { ellipse($0 - center, radii) }
    }

    /// The surface as 8-bit RGB.
    package var image: Image {
        var bytes = [UInt8](repeating: 0, count: 3 * size * size)
        for index in pixels.indices {
            let scaled = (pixels[index] * 255).rounded(.toNearestOrAwayFromZero)
            for c in 0..<3 { bytes[3 * index + c] = UInt8(min(max(scaled[c], 0), 255)) }
        }
        return Image(width: size, height: size, pixels: bytes)
    }
}

// MARK: Signed distances

/// Signed distance to an ellipse around the origin; exact to first order at its edge, which suffices for
/// coverage.
@inline(__always)
package func ellipse(_ p: Point, _ radii: Point) -> Float {
    let q = p / radii
    let s = q / radii
    let k = (q.x * q.x + q.y * q.y).squareRoot()
    let gradient = (s.x * s.x + s.y * s.y).squareRoot()
    return gradient > 1e-6 ? k * (k - 1) / gradient : -min(radii.x, radii.y)
}

/// Signed distance to a circle around the origin.
@inline(__always)
package func circle(_ p: Point, _ radius: Float) -> Float { (p.x * p.x + p.y * p.y).squareRoot() - radius }

/// Signed distance to a rectangle with rounded corners around the origin.
@inline(__always)
package func roundedBox(_ p: Point, _ half: Point, _ radius: Float) -> Float {
    let q = Point(abs(p.x), abs(p.y)) - half + radius
    let outside = pointwiseMax(q, Point(0, 0))
    return (outside.x * outside.x + outside.y * outside.y).squareRoot() + min(max(q.x, q.y), 0) - radius
}

/// Signed distance to the line segment between two points, thickened by `radius` on both sides.
@inline(__always)
package func capsule(_ p: Point, _ a: Point, _ b: Point, _ radius: Float) -> Float {
    let (pa, ba) = (p - a, b - a)
    let t = min(max((pa.x * ba.x + pa.y * ba.y) / max(ba.x * ba.x + ba.y * ba.y, 1e-12), 0), 1)
    return circle(pa - ba * t, radius)
}

/// Signed distance to the union of two shapes, with a fillet of width `k` where they meet.
@inline(__always)
package func smoothUnion(_ a: Float, _ b: Float, _ k: Float) -> Float {
    let h = max(k - abs(a - b), 0) / k
    return min(a, b) - h * h * k / 4
}

/// 1 at the origin, decreasing smoothly to 0 at the ellipse's edge.
@inline(__always)
package func glow(_ p: Point, _ radii: Point) -> Float {
    let q = p / radii
    let rest = max(0, 1 - q.x * q.x - q.y * q.y)
    return rest * rest
}

@inline(__always)
package func mix(_ a: Color, _ b: Color, _ t: Float) -> Color { a + (b - a) * t }
