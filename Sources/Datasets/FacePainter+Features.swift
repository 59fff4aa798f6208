import Imaging

/// Eyes, brows, nose, mouth and glasses.
extension FacePainter {
    private func eyeCenter(_ side: Float) -> Point { Point(side * traits.eyeSpacing + traits.yaw, -0.03) }

    mutating func drawEye(_ side: Float) {
        let center = eyeCenter(side)
        let (half, opening) = (Float(0.142), traits.eyeOpening)
        // The eye is the intersection of two circles, one for each lid.
        let radius = (half * half + opening * opening) / (2 * opening)
        let lid = Point(0, radius - opening)
        let box = Box(center, Point(half, opening))
        @inline(__always)
        func almond(_ p: Point) -> Float { max(circle(p - lid, radius), circle(p + lid, radius)) }

        canvas.fillEllipse(
            center + Point(0, -0.015), Point(0.2, 0.14), soft: 0.12, opacity: 0.28, traits.skin * 0.55)
        canvas.fill(
            box, color: { p in Color(0.97, 0.97, 0.96) - 1.1 * max(0, center.y - p.y) },
            distance: {
                almond($0 - center)
            })
        let gaze = center + Point(traits.yaw * 0.45, -0.004)
        let iris = traits.iris
        canvas.fill(
            box, color: { p in iris * (1.05 + 3.5 * (p.y - gaze.y)) },
            distance: { max(circle($0 - gaze, 0.078), almond($0 - center)) })
        canvas.fill(box, Color(0.05, 0.04, 0.05)) { max(circle($0 - gaze, 0.039), almond($0 - center)) }
        canvas.fillEllipse(gaze + Point(-0.028, -0.03), Point(0.02, 0.02), Color(1, 1, 1))
        // Lashes along the upper lid, and a faint line under the lower lid.
        let lashes = mix(traits.hair, Color(0.08, 0.05, 0.05), 0.8)
        canvas.fill(Box(center + Point(0, -0.02), Point(half + 0.03, opening + 0.03)), lashes) { p in
            let q = p - center
            return max(abs(circle(q - lid, radius)) - 0.017, abs(q.x) - half - 0.015, q.y - 0.04)
        }
        canvas.fill(Box(center, Point(half, opening + 0.03)), soft: 0.03, opacity: 0.4, traits.skin * 0.5) {
            p in
            let q = p - center
            return max(abs(circle(q + lid, radius) - 0.006) - 0.008, abs(q.x) - half * 0.8, -q.y)
        }
    }

    mutating func drawBrow(_ side: Float) {
        let traits = traits
        let center = eyeCenter(side) + Point(side * 0.01, -0.205 - traits.browArch * 0.4)
        let color = mix(
            traits.hairStyle == .bald ? Color(0.3, 0.2, 0.15) : traits.hair * 0.8, traits.skin, 0.12)
        let half: Float = 0.155
        canvas.fill(Box(center, Point(half + 0.02, 0.12)), color) { p in
            let q = p - center
            // Thick at the nose, thin at the temple.
            let along = side * q.x / half
            let thickness = traits.browThickness * (1 - 0.35 * along)
            let middle = traits.browArch * (along * along * 1.1 - 0.35 * along - 0.3)
            return max(abs(q.y - middle) - thickness, abs(q.x) - half)
        }
    }

    mutating func drawNose() {
        let (skin, turn) = (traits.skin, traits.yaw)
        let tip = Point(turn * 1.5, traits.noseLength)
        let wide = traits.noseWidth
        let dark = skin * Color(0.62, 0.52, 0.50)
        // The side away from the light, the highlight on the bridge, the tip, and the shadow under it.
        canvas.fill(
            Box(Point(tip.x, 0.08), Point(0.2, 0.24)), soft: 0.07, opacity: 0.34, dark
        ) { capsule($0, Point(turn + 0.065, -0.06), tip + Point(wide * 0.75, -0.02), 0.022) }
        canvas.fill(
            Box(Point(tip.x, 0.08), Point(0.2, 0.24)), soft: 0.08, opacity: 0.5, skin * 1.08 + 0.03
        ) { capsule($0, Point(turn - 0.005, -0.08), tip + Point(-0.012, -0.04), 0.03) }
        canvas.fillEllipse(tip + Point(0, 0.032), Point(wide * 1.05, 0.04), soft: 0.045, opacity: 0.7, dark)
        canvas.fillEllipse(
            tip + Point(-0.005, -0.01), Point(wide * 0.8, 0.055), soft: 0.05, opacity: 0.8, skin * 1.04)
        for side: Float in [-1, 1] {
            canvas.fillEllipse(
                tip + Point(side * wide * 0.5, 0.034), Point(0.026, 0.017), soft: 0.02, opacity: 0.75,
                skin * 0.36)
        }
    }

    mutating func drawMouth() {
        let traits = traits
        let center = Point(traits.yaw * 1.25, 0.43)
        let (half, smile, open) = (traits.mouthWidth, traits.smile, traits.mouthOpening)
        let box = Box(center, Point(half + 0.02, 0.19))
        /// The squared relative position along the mouth, and the height above the line where the lips meet.
        @inline(__always)
        func place(_ p: Point) -> (square: Float, y: Float) {
            let q = p - center
            let square = q.x * q.x / (half * half)
            return (square, q.y + smile * (square - 0.5))
        }
        let (upper, lower) = (Float(0.040), Float(0.056))
        let lips = traits.lips
        // A shadow under the lower lip.
        canvas.fillEllipse(
            center + Point(0, 0.115 + open), Point(half * 0.7, 0.035), soft: 0.06, opacity: 0.3,
            traits.skin * 0.5)
        canvas.fill(box, lips * 0.86) { p in
            let (square, y) = place(p)
            return max(
                -y - upper * (1 - square), y - (0.008 + open * 0.5) * (1 - square),
                square.squareRoot() * half - half)
        }
        canvas.fill(
            box,
            color: { p in lips * 1.04 + glow(p - center - Point(-0.02, 0.04 + open), Point(0.10, 0.03)) * 0.14
            },
            distance: { p in
                let (square, y) = place(p)
                return max(-y, y - (lower + open) * (1 - square), square.squareRoot() * half - half)
            })
        if open > 0 {
            // The dark interior of the mouth, then the upper teeth.
            for (color, part) in [(traits.lips * 0.35, Float(1)), (Color(0.97, 0.96, 0.93), 0.72)] {
                canvas.fill(box, color) { p in
                    let (square, y) = place(p)
                    return max(-y, y - part * open * (1 - square))
                }
            }
        } else {
            canvas.fill(box, lips * 0.5) { p in
                let (square, y) = place(p)
                return max(abs(y) - 0.013 * (1 - 0.6 * square), square.squareRoot() * half - half)
            }
        }
    }

    mutating func drawGlasses(_ color: Color) {
        let round = traits.roundGlasses
        let half = round ? Point(0.185, 0.175) : Point(0.195, 0.145)
        let corner: Float = round ? 0.17 : 0.06
        let thickness: Float = 0.018
        let spacing = max(traits.eyeSpacing, 0.235)
        let box = Box(Point(traits.yaw, -0.02), Point(0.75, 0.25))
        for side: Float in [-1, 1] {
            let center = Point(side * spacing + traits.yaw, -0.02)
            canvas.fill(Box(center, half), opacity: 0.14, Color(0.86, 0.94, 1)) {
                roundedBox($0 - center, half, corner)
            }
            canvas.fill(Box(center, half + thickness), color) {
                abs(roundedBox($0 - center, half, corner)) - thickness
            }
            let hinge = Point(center.x + side * half.x, -0.06)
            let ear = Point(side * (traits.headWidth + 0.01) - 0.35 * traits.yaw, -0.03)
            canvas.fill(box, color) { capsule($0, hinge, ear, 0.016) }
        }
        let bridge = spacing - half.x
        canvas.fill(box, color) { p in
            let q = p - Point(traits.yaw, -0.05)
            return max(abs(q.y + 0.02 - 3 * q.x * q.x) - thickness, abs(q.x) - bridge)
        }
    }
}
