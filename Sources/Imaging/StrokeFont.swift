/// A built-in font for plots: printable ASCII as pen strokes, which are smooth at any size and need no font
/// file on the host.
///
/// A glyph's strokes are separated by blanks. The first character is the kind: `-` a polyline, `~` a smooth
/// curve (quadratic B-spline) from the first to the last point, `o` a closed smooth curve. It is followed by
/// points as pairs x, y in base 36. Capitals extend from y = 0 to the baseline at 12, lower-case letters
/// start at 4, and descenders reach to 16.
struct StrokeFont {
    /// Cap height in stroke units.
    static let capHeight = 12.0
    /// Space between two glyphs, in stroke units.
    private static let spacing = 3.6

    /// Converts a text to strokes, with y = 0 at the top of capitals, scaled to the cap height `capHeight`.
    ///
    /// - Returns: the strokes and the text's width.
    static func layout(_ text: String, capHeight: Double) -> (strokes: [[SIMD2<Double>]], width: Double) {
        let scale = capHeight / Self.capHeight
        var strokes: [[SIMD2<Double>]] = []
        var x = 0.0
        for character in text {
            // Characters without a glyph are shown as a box.
            let (width, glyph) = glyphs[character] ?? (7, "-00707c0c00")
            for stroke in glyph.split(separator: " ") {
                strokes.append(points(of: stroke).map { ($0 + SIMD2(x, 0)) * scale })
            }
            x += width + spacing
        }
        return (strokes, max(0, x - spacing) * scale)
    }

    /// The points of one stroke; curves are approximated by short lines.
    private static func points(of stroke: Substring) -> [SIMD2<Double>] {
        let digits = stroke.dropFirst().map { Double($0.hexOrLetterValue) }
        let control = stride(from: 0, to: digits.count - 1, by: 2).map { SIMD2(digits[$0], digits[$0 + 1]) }
        guard stroke.first != "-", control.count > 2 else { return control }
        let closed = stroke.first == "o"
        // Each inner control point defines a piece of the curve between the midpoints of its two adjacent
        // segments.
        let count = control.count
        let bends = closed ? Array(0..<count) : Array(1..<count - 1)
        var points: [SIMD2<Double>] = []
        for bend in bends {
            let (before, at, after) = (
                control[(bend + count - 1) % count], control[bend], control[(bend + 1) % count]
            )
            let start = !closed && bend == 1 ? before : (before + at) / 2
            let end = !closed && bend == count - 2 ? after : (at + after) / 2
            for step in 0...8 {
                let t = Double(step) / 8
                points.append(start * (1 - t) * (1 - t) + at * 2 * t * (1 - t) + end * t * t)
            }
        }
        return points
    }

    /// Width and strokes of each glyph.
    private static let glyphs: [Character: (Double, String)] = [
        " ": (2, ""), "!": (2, "-1018 o0b1b1c0c"), "\"": (3, "-0003 -3033"),
        "#": (8, "-301c -705c -0484 -0888"),
        "$": (7, "~72600006767c1c0a -404c"), "%": (10, "o00404505 o67a7ac6c -901c"),
        "&": (8, "~8c14106064070c6c87"), "'": (2, "-1013"), "(": (3, "~30030a3d"), ")": (3, "~00333a0d"),
        "*": (6, "-3137 -0266 -0662"), "+": (6, "-0767 -343a"), ",": (1, "o0b1b1c0c -1c0e"),
        "-": (4, "-0747"),
        ".": (1, "o0b1b1c0c"), "/": (6, "-0d60"), ":": (1, "o05151606 o0b1b1c0c"),
        ";": (1, "o05151606 o0b1b1c0c -1c0e"),
        "<": (6, "-63076b"), "=": (6, "-0565 -0969"), ">": (6, "-03670b"),
        "?": (6, "~020060653638 o3b4b4c3c"),
        "@": (10, "o34747a3a ~8c0c00a0aa7a74"), "[": (3, "-30000d3d"), "\\": (6, "-006d"),
        "]": (3, "-00303d0d"),
        "^": (6, "-043064"), "_": (7, "-0d7d"), "`": (2, "-0022"), "{": (4, "~40202606 ~06262d4d"),
        "|": (2, "-101d"), "}": (4, "~00202646 ~46262d0d"), "~": (6, "~08244a66"),
        "0": (7, "o00707c0c"), "1": (7, "-13404c"), "2": (7, "~030070750c -0c7c"),
        "3": (7, "~0210707636 ~36767c1c0a"), "4": (7, "-5c500878"), "5": (7, "-601005 ~0524747c1c0a"),
        "6": (7, "o05757c0c ~080060"), "7": (7, "-00702c"), "8": (7, "o10606616 o06767c0c"),
        "9": (7, "o00707707 ~747c1c"),
        "A": (8, "-0c408c -1878"), "B": (8, "-000c ~00707606 ~06868c0c"), "C": (8, "~8270000c7c8a"),
        "D": (8, "-000c ~00808c0c"), "E": (7, "-70000c7c -0656"), "F": (7, "-70000c -0656"),
        "G": (8, "~8270000c8c87 -8757"), "H": (8, "-000c -808c -0686"), "I": (2, "-101c"),
        "J": (6, "-6068 ~686c0c09"), "K": (7, "-000c -7007 -347c"), "L": (7, "-000c7c"),
        "M": (8, "-0c0048808c"),
        "N": (8, "-0c008c80"), "O": (8, "o00808c0c"), "P": (7, "-0c00 ~00808707"),
        "Q": (8, "o00808c0c -598d"),
        "R": (8, "-0c00 ~00808707 -478c"), "S": (7, "~72600006767c1c0a"), "T": (8, "-0080 -404c"),
        "U": (8, "-0008 ~080c8c88 -8880"), "V": (8, "-004c80"), "W": (10, "-002c538ca0"),
        "X": (8, "-008c -800c"),
        "Y": (8, "-004680 -464c"), "Z": (8, "-00800c8c"),
        "a": (6, "o04646c0c -646c"), "b": (6, "-000c o04646c0c"), "c": (6, "~6554040c5c6b"),
        "d": (6, "-606c o04646c0c"), "e": (6, "-0868 ~6864040c5c6b"), "f": (4, "~502024 -242c -0444"),
        "g": (6, "o04646c0c -646d ~6d6g1g0f"), "h": (6, "-000c ~08046468 -686c"), "i": (2, "-141c -1111"),
        "j": (3, "-242d ~2d2g0g -2121"), "k": (6, "-000c -5409 -276c"), "l": (2, "-101c"),
        "m": (10, "-040c ~08045458 -585c ~5854a4a8 -a8ac"), "n": (6, "-040c ~08046468 -686c"),
        "o": (6, "o04646c0c"), "p": (6, "-040g o04646c0c"), "q": (6, "-646g o04646c0c"),
        "r": (4, "-040c ~080444"), "s": (5, "~55440408585c1c0b"), "t": (4, "-2129 ~292c4c -0444"),
        "u": (6, "-0408 ~080c6c68 -646c"), "v": (6, "-043c64"), "w": (8, "-042c466c84"),
        "x": (6, "-046c -640c"),
        "y": (6, "-043b -641g"), "z": (6, "-04640c6c"),
        "×": (6, "-046a -640a"), "²": (4, "~010040430 -0647"), "·": (1, "o07171808"), "−": (6, "-0767"),
        "–": (6, "-0767"), "…": (9, "o0b1b1c0c o4b5b5c4c o8b9b9c8c"),
    ]
}

extension Character {
    /// Maps 0 to 9 and a to z to 0 to 35.
    fileprivate var hexOrLetterValue: Int {
        guard let ascii = asciiValue else { return 0 }
        return ascii < 58 ? Int(ascii) - 48 : Int(ascii) - 87
    }
}
