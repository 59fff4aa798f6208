/// Faces drawn by the program: a data set that needs no download.
public struct SyntheticFacesSource: ImageSource {
    /// How many faces `synthetic-faces` means without a number.
    public static let defaultCount = 6000

    public let count: Int
    /// The side in pixels. A face is the same at any size.
    public let size: Int
    private let faces: SyntheticFaces

    public init(count: Int, size: Int, seed: UInt64) {
        precondition(count > 0 && size >= Image.minimumSide)
        self.count = count
        self.size = size
        faces = SyntheticFaces(seed: seed)
    }

    public var name: String { "synthetic-faces:\(count)" }

    public var fingerprint: String {
        var hash = SourceFingerprint()
        hash.add("synthetic-faces \(SyntheticFaces.version)")
        hash.add(count)
        hash.add(size)
        hash.add(String(faces.seed))
        return hash.text
    }

    public var content: SourceContent? { nil }
    public func size(at index: Int) throws(ImageError) -> (width: Int, height: Int)? { (size, size) }
    public func itemName(at index: Int) -> String { "face-\(index)" }
    public func label(at index: Int) -> String? { nil }
    public func image(at index: Int) throws(ImageError) -> Image { faces.draw(index, size: size) }
}
