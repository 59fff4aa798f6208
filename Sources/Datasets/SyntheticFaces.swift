import Imaging
import Support
import TensorCore

/// Portraits generated from a seed: a dataset that requires no download and whose samples are easy to judge
/// by eye.
///
/// A face is a pure function of (seed, index): the same on all hosts, and with the same content at any size.
/// Its features are bold, smooth and positioned so that a diffusion model with a few million parameters can
/// learn them in minutes.
package struct SyntheticFaces: Sendable {
    /// Must change whenever the images for a seed change.
    package static let version = 1

    package let seed: UInt64

    package init(seed: UInt64) { self.seed = seed }

    /// Draws face number `index` with `size` by `size` pixels.
    package func draw(_ index: Int, size: Int) -> Image {
        precondition(index >= 0 && size > 0)
        var random = CounterRandom(seed: seed, purpose: .syntheticImage, sample: UInt64(index))
        return FacePainter(FaceTraits(&random), size: size).image()
    }
}

/// The parameters of a face. Lengths are in the face's own frame, in which the head is about 1.1 wide and 1.4
/// high around the origin.
struct FaceTraits {
    enum HairStyle: CaseIterable { case short, sidePart, bald, fringe, bob, long, curly, bun }
    enum Neckline: CaseIterable { case round, vee, collar }

    var origin: Point
    var tilt: Float
    var scale: Float
    /// Horizontal rotation of the features.
    var yaw: Float

    var skin: Color
    var hair: Color
    var hairStyle: HairStyle
    /// The side of the parting, -1 or 1.
    var side: Float
    var hairVolume: Float
    var beard: Bool

    var headWidth: Float
    var jawWidth: Float
    var chin: Float

    var iris: Color
    var eyeSpacing: Float
    var eyeOpening: Float
    var browArch: Float
    var browThickness: Float
    var noseWidth: Float
    var noseLength: Float

    var lips: Color
    var mouthWidth: Float
    var smile: Float
    /// How far the lips are open; teeth are visible above 0.
    var mouthOpening: Float

    var glasses: Color?
    var roundGlasses: Bool

    var background: Color
    var backgroundTop: Color
    var clothes: Color
    var neckline: Neckline

    init(_ random: inout CounterRandom) {
        origin = Point(random.uniform(-0.04, 0.04), random.uniform(0.0, 0.06))
        tilt = random.uniform(-0.08, 0.08)
        scale = random.uniform(1.06, 1.15)
        yaw = random.uniform(-0.06, 0.06)

        let tone = random.uniform()
        skin = Self.gradient(Self.skinTones, tone)
        // Dark skin mostly has dark hair; light hair colors are at the end of the list.
        let hairColors = tone > 0.6 ? Self.hairColors.prefix(3) + [Self.grey] : Self.hairColors[...]
        hair = hairColors[random.integer(below: hairColors.count)] * random.uniform(0.9, 1.1)
        hairStyle = Self.pick(
            [
                (.short, 18), (.sidePart, 18), (.bald, 7), (.fringe, 12), (.bob, 11), (.long, 18),
                (.curly, 11), (.bun, 5),
            ],
            &random)
        side = random.uniform() < 0.5 ? -1 : 1
        hairVolume = random.uniform(-0.02, 0.04)
        let mayHaveBeard = [.short, .sidePart, .bald].contains(hairStyle)
        beard = random.uniform() < 0.22 && mayHaveBeard

        headWidth = random.uniform(0.515, 0.565)
        jawWidth = random.uniform(0.80, 0.92)
        chin = random.uniform(0.68, 0.74)

        iris = Self.irisColors[random.integer(below: Self.irisColors.count)]
        eyeSpacing = random.uniform(0.225, 0.25)
        eyeOpening = random.uniform(0.080, 0.100)
        browArch = random.uniform(0.02, 0.06)
        browThickness = random.uniform(0.022, 0.036)
        noseWidth = random.uniform(0.075, 0.10)
        noseLength = random.uniform(0.20, 0.25)

        let lipTint = random.uniform() < 0.3 ? Color(0.78, 0.16, 0.24) : Color(0.74, 0.32, 0.32)
        lips = mix(skin, lipTint, beard ? 0.45 : random.uniform(0.5, 0.75))
        mouthWidth = random.uniform(0.165, 0.215)
        smile = random.uniform(0.02, 0.085)
        mouthOpening = random.uniform() < 0.4 ? random.uniform(0.045, 0.075) : 0

        let wearsGlasses = random.uniform() < 0.25
        let frame = Self.glassesColors[random.integer(below: Self.glassesColors.count)]
        glasses = wearsGlasses ? frame : nil
        roundGlasses = random.uniform() < 0.5

        background = Self.backgrounds[random.integer(below: Self.backgrounds.count)]
        backgroundTop = mix(background, Color(1, 1, 1), random.uniform(0.1, 0.35))
        clothes = Self.clothesColors[random.integer(below: Self.clothesColors.count)]
        neckline = Neckline.allCases[random.integer(below: Neckline.allCases.count)]
    }

    private static func pick<Value>(_ weighted: [(Value, Int)], _ random: inout CounterRandom) -> Value {
        var ticket = random.integer(below: weighted.reduce(0) { $0 + $1.1 })
        for (value, weight) in weighted {
            if ticket < weight { return value }
            ticket -= weight
        }
        return weighted[0].0
    }

    private static func gradient(_ stops: [Color], _ t: Float) -> Color {
        let position = t * Float(stops.count - 1)
        let index = min(Int(position), stops.count - 2)
        return mix(stops[index], stops[index + 1], position - Float(index))
    }

    private static let skinTones = [
        Color(0.99, 0.86, 0.77), Color(0.96, 0.79, 0.67), Color(0.90, 0.70, 0.55), Color(0.80, 0.58, 0.42),
        Color(0.66, 0.45, 0.32), Color(0.50, 0.33, 0.23),
    ]
    private static let grey = Color(0.70, 0.69, 0.69)
    private static let hairColors = [
        Color(0.11, 0.09, 0.10), Color(0.23, 0.14, 0.10), Color(0.38, 0.23, 0.13), Color(0.58, 0.27, 0.13),
        Color(0.70, 0.49, 0.25), Color(0.90, 0.73, 0.42), grey,
    ]
    private static let irisColors = [
        Color(0.33, 0.19, 0.10), Color(0.42, 0.26, 0.13), Color(0.25, 0.45, 0.65), Color(0.30, 0.50, 0.33),
        Color(0.40, 0.48, 0.52),
    ]
    private static let glassesColors = [
        Color(0.10, 0.10, 0.12), Color(0.32, 0.18, 0.10), Color(0.14, 0.20, 0.42), Color(0.55, 0.10, 0.14),
    ]
    private static let backgrounds = [
        Color(0.45, 0.62, 0.78), Color(0.52, 0.70, 0.64), Color(0.86, 0.74, 0.56), Color(0.80, 0.60, 0.58),
        Color(0.62, 0.58, 0.76), Color(0.66, 0.70, 0.74), Color(0.36, 0.48, 0.58), Color(0.74, 0.78, 0.58),
    ]
    private static let clothesColors = [
        Color(0.20, 0.28, 0.45), Color(0.55, 0.16, 0.20), Color(0.18, 0.38, 0.34), Color(0.90, 0.90, 0.88),
        Color(0.25, 0.25, 0.28), Color(0.85, 0.60, 0.22), Color(0.42, 0.30, 0.50), Color(0.36, 0.55, 0.72),
    ]
}

/// Generated faces: a dataset that requires no download.
package struct SyntheticFacesSource: ImageSource {
    /// Number of faces for `synthetic-faces` without a count.
    package static let defaultCount = 6000

    package let count: Int
    /// Side in pixels. A face shows the same content at any size.
    package let size: Int
    private let faces: SyntheticFaces

    package init(count: Int, size: Int, seed: UInt64) {
        precondition(count > 0 && size >= Image.minimumSide)
        self.count = count
        self.size = size
        faces = SyntheticFaces(seed: seed)
    }

    package var name: String { "synthetic-faces:\(count)" }

    package var fingerprint: String {
        var hash = SourceFingerprint()
        hash.add("synthetic-faces \(SyntheticFaces.version)")
        hash.add(count)
        hash.add(size)
        hash.add(String(faces.seed))
        return hash.text
    }

    package var content: SourceContent? { nil }
    package func size(at index: Int) throws(ImageError) -> (width: Int, height: Int)? { (size, size) }
    package func itemName(at index: Int) -> String { "face-\(index)" }
    package func image(at index: Int) throws(ImageError) -> Image { faces.draw(index, size: size) }
}
