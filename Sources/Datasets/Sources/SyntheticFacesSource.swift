import Imaging
import Support

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
    package func label(at index: Int) -> String? { nil }
    package func image(at index: Int) throws(ImageError) -> Image { faces.draw(index, size: size) }
}
