import Imaging

/// Draws one face from back to front.
struct FacePainter {
    let traits: FaceTraits
    var canvas: Canvas

    init(_ traits: FaceTraits, size: Int) {
        self.traits = traits
        canvas = Canvas(size: size)
    }

    func image() -> Image {
        var painter = self
        painter.drawBackground()
        painter.canvas.setFrame(origin: traits.origin, angle: traits.tilt, scale: traits.scale)
        painter.drawBackHair()
        painter.drawNeckAndClothes()
        painter.drawEars()
        painter.drawHead()
        if traits.beard { painter.drawBeard() }
        for side: Float in [-1, 1] { painter.drawEye(side) }
        painter.drawNose()
        painter.drawMouth()
        painter.drawFrontHair()
        for side: Float in [-1, 1] { painter.drawBrow(side) }
        if let color = traits.glasses { painter.drawGlasses(color) }
        return painter.canvas.image
    }

    // MARK: Behind the head

    private mutating func drawBackground() {
        let (low, high) = (traits.background, traits.backgroundTop)
        canvas.fill(
            Box(Point(0, 0), Point(1, 1)),
            color: { p in mix(low * 0.88, high, 0.5 - 0.5 * p.y) + glow(p, Point(1.6, 1.6)) * 0.06 },
            distance: { _ in -1 })
    }

    /// Hair is lighter where light from the upper left falls on it.
    private static func hairColor(_ base: Color, _ p: Point) -> Color {
        let light = glow(p - Point(-0.18, -0.56), Point(0.55, 0.34))
        let shade = 0.90 - 0.14 * min(max(p.y + 0.2, 0), 1)
        return base * shade + (base * 0.26 + 0.09) * light
    }

    private mutating func drawBackHair() {
        let traits = traits
        let base = traits.hair
        let width = traits.headWidth + 0.12 + traits.hairVolume
        switch traits.hairStyle {
        case .long:
            let center = Point(0, 0.42)
            let half = Point(width, 1.16)
            canvas.fill(
                Box(center, half), color: { Self.hairColor(base * 0.82, $0) },
                distance: {
                    roundedBox($0 - center, half, width)
                })
        case .bob:
            let center = Point(0, -0.06)
            let half = Point(width - 0.01, 0.72)
            canvas.fill(
                Box(center, half), color: { Self.hairColor(base * 0.82, $0) },
                distance: {
                    roundedBox($0 - center, half, 0.42)
                })
        case .curly:
            let center = Point(0, -0.16)
            let radii = Point(traits.headWidth + 0.15 + traits.hairVolume, 0.70)
            canvas.fill(
                Box(center, radii + 0.06), color: { Self.hairColor(base * 0.9, $0) },
                distance: {
                    ellipse($0 - center, radii) - Self.curl($0 - center)
                })
        case .bun:
            let center = Point(0, -0.82)
            let radius: Float = 0.2
            canvas.fill(
                Box(center, Point(radius, radius)), color: { Self.hairColor(base, $0) },
                distance: {
                    circle($0 - center, radius)
                })
        default: break
        }
    }

    /// Bumps around a center, for curls: cos 12a, computed with Chebyshev polynomials.
    @inline(__always)
    private static func curl(_ p: Point) -> Float {
        let c = p.y / max((p.x * p.x + p.y * p.y).squareRoot(), 1e-6)
        let square = 2 * c * c - 1  // cos 2a, where a is the angle to the vertical
        let fourfold = 2 * square * square - 1
        let twelvefold = 4 * fourfold * fourfold * fourfold - 3 * fourfold
        return 0.035 * twelvefold
    }

    private mutating func drawNeckAndClothes() {
        let traits = traits
        let neck = Point(0, 0.85)
        let skin = traits.skin
        canvas.fill(
            Box(neck, Point(0.25, 0.5)),
            color: { p in
                // The shadow of the chin on the neck.
                let shadow = min(max(1 - (p.y + 0.5 * p.x * p.x - 0.70) / 0.22, 0), 1)
                return skin * (0.92 - 0.10 * p.x - 0.34 * shadow)
            }, distance: { p in roundedBox(p - neck, Point(0.25, 0.5), 0.05) })

        let clothes = traits.clothes
        let shoulders = Point(0, 1.28)
        let neckline = traits.neckline
        canvas.fill(
            Box(shoulders, Point(1.1, 0.52)),
            color: { p in clothes * (1.02 - 0.16 * p.x - 0.25 * max(0, p.y - 1)) },
            distance: { p in
                let body = ellipse(p - shoulders, Point(1.02, 0.50))
                let opening =
                    switch neckline {
                    case .round: ellipse(p - Point(0, 0.78), Point(0.31, 0.13))
                    case .vee: (abs(p.x) * 1.25 + p.y - 1.08) * 0.62
                    case .collar: ellipse(p - Point(0, 0.74), Point(0.27, 0.12))
                    }
                return max(body, -opening)
            })
        if neckline == .collar {
            let color = mix(clothes, Color(1, 1, 1), 0.55)
            for side: Float in [-1, 1] {
                canvas.fill(Box(Point(0.2 * side, 0.87), Point(0.2, 0.16)), color) { p in
                    capsule(p, Point(0.29 * side, 0.79), Point(0.08 * side, 0.93), 0.055)
                }
            }
        }
    }

    // MARK: The head

    /// The outline of the head: a skull and a jaw, joined smoothly.
    @inline(__always)
    private static func head(_ p: Point, _ traits: FaceTraits) -> Float {
        let skull = ellipse(p - Point(0, -0.12), Point(traits.headWidth, 0.58))
        let jaw = ellipse(
            p - Point(0, traits.chin - 0.5), Point(traits.headWidth * traits.jawWidth, 0.5))
        return smoothUnion(skull, jaw, 0.16)
    }

    private mutating func drawEars() {
        if traits.hairStyle == .long || traits.hairStyle == .bob { return }  // the hair hides them
        let skin = traits.skin
        for side: Float in [-1, 1] {
            let center = Point(side * (traits.headWidth + 0.015) - 0.35 * traits.yaw, 0.05)
            canvas.fillEllipse(center, Point(0.085, 0.14), skin * 0.93)
            canvas.fillEllipse(
                center + Point(0.012 * side, 0.005), Point(0.045, 0.085), soft: 0.05, skin * 0.72)
        }
    }

    private mutating func drawHead() {
        let traits = traits
        let skin = traits.skin
        let shadow = skin * Color(0.74, 0.66, 0.64)
        let blush = mix(skin, Color(0.90, 0.36, 0.33), 0.55)
        let turn = traits.yaw
        canvas.fill(
            Box(Point(0, 0.02), Point(0.68, 0.82)),
            color: { p in
                // Light from the upper left, a darker rim, and warm cheeks.
                let light = -0.10 * p.x - 0.07 * p.y
                let rim = min(max(1 + Self.head(p, traits) * 4.5, 0), 1)
                let cheeks =
                    glow(p - Point(turn - 0.30, 0.24), Point(0.24, 0.20))
                    + glow(p - Point(turn + 0.30, 0.24), Point(0.24, 0.20))
                var color = skin * (1.02 + light)
                color = mix(color, shadow, rim * rim * (p.x > 0 ? 0.55 : 0.35))
                color = mix(color, blush, 0.42 * cheeks)
                return color + glow(p - Point(turn - 0.1, -0.33), Point(0.34, 0.22)) * 0.06
            }, distance: { Self.head($0, traits) })
    }

    private mutating func drawBeard() {
        let traits = traits
        let color = mix(traits.hair * 0.82, traits.skin, 0.10)
        canvas.fill(
            Box(Point(0, 0.40), Point(0.68, 0.42)), soft: 0.05, color: { p in color * (1 - 0.18 * p.x) },
            distance: { p in
                let face = ellipse(p - Point(traits.yaw, 0.0), Point(traits.headWidth * 0.86, 0.34))
                return max(Self.head(p, traits) - 0.015, -face, 0.05 - p.y)
            })
    }

    // MARK: Before the head

    private mutating func drawFrontHair() {
        let traits = traits
        guard traits.hairStyle != .bald else { return }
        let base = traits.hair
        let volume = traits.hairVolume
        let width = traits.headWidth
        let center = Point(0, -0.16)
        let outer = Point(width + 0.065 + volume, 0.64 + volume)
        let (side, turn) = (traits.side, traits.yaw * 0.6)
        @inline(__always)
        func cap(_ p: Point) -> Float { ellipse(p - center, outer) }

        switch traits.hairStyle {
        case .short, .bun:
            let end: Float = traits.hairStyle == .bun ? -0.02 : 0.02
            fillHair(base) { p in
                let face = ellipse(p - Point(turn, 0.20), Point(width * 0.94, 0.66))
                return max(cap(p), -face, p.y - end)
            }
        case .sidePart:
            fillHair(base) { p in
                // Two arcs that meet at the parting; the wider one is swept across the forehead.
                let wide = ellipse(p - Point(turn - side * 0.16, 0.24), Point(width * 0.86, 0.60))
                let narrow = ellipse(p - Point(turn + side * 0.26, 0.16), Point(width * 0.62, 0.62))
                return max(cap(p), -min(wide, narrow), p.y - 0.04)
            }
        case .fringe:
            fillHair(base) { p in
                let face = roundedBox(p - Point(turn, 0.30), Point(width * 0.90, 0.56), 0.2) - 0.02 * abs(p.x)
                return max(cap(p), -face, p.y - 0.16)
            }
        case .bob:
            fillHair(base) { p in
                let face = roundedBox(p - Point(turn, 0.30), Point(width * 0.82, 0.55), 0.26)
                let sides = roundedBox(p - Point(0, 0.0), Point(width + 0.055 + volume, 0.62), 0.34)
                return max(smoothUnion(cap(p), sides, 0.1), -face, p.y - 0.62)
            }
        case .long:
            fillHair(base) { p in
                // Parted in the middle, on both sides of the face.
                let left = ellipse(p - Point(turn - 0.14, 0.28), Point(width * 0.66, 0.74))
                let right = ellipse(p - Point(turn + 0.14, 0.28), Point(width * 0.66, 0.74))
                let sides = roundedBox(p - Point(0, 0.24), Point(width + 0.09 + volume, 0.76), 0.30)
                let low = (p.y - 0.78) + 0.6 * max(0, width - abs(p.x))
                return max(smoothUnion(cap(p), sides, 0.1), -min(left, right), low)
            }
        case .curly:
            fillHair(base) { p in
                let q = p - Point(turn, 0.22)
                let face = ellipse(q, Point(width * 0.92, 0.62)) - 0.6 * Self.curl(q)
                let bumpy = ellipse(p - center, outer + Point(0.06, 0.06)) - Self.curl(p - center)
                return max(bumpy, -face, p.y - 0.10)
            }
        case .bald: break
        }
    }

    @inline(__always)
    private mutating func fillHair(_ base: Color, _ distance: (Point) -> Float) {
        let box = Box(Point(0, 0.0), Point(0.80, 0.95))
        // A shadow on the forehead separates the hair from the skin.
        let shadow = traits.skin * 0.45
        let traits = traits
        canvas.fill(box, soft: 0.09, opacity: 0.35, shadow) {
            max(distance($0 - Point(0.01, 0.03)), Self.head($0, traits))
        }
        canvas.fill(box, color: { Self.hairColor(base, $0) }, distance: distance)
    }
}
