import Imaging
import Support

/// Faces drawn by the program: a data set that needs no download.
package struct SyntheticFacesSource: ImageSource {
    /// How many faces `synthetic-faces` means without a number.
    package static let defaultCount = 6000

    package let count: Int
    /// The side in pixels. A face is the same at any size.
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
    package func label(at index: Int) -> String? { nil }
    package func image(at index: Int) throws(ImageError) -> Image { faces.draw(index, size: size) }
}
