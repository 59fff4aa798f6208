/// How an image of a dataset becomes a training image: centre crop to a square, then resizing.
package struct ImageTransform: Equatable, Sendable, CustomStringConvertible {
    /// The side of the result in pixels.
    package let size: Int
    package let filter: ResizeFilter

    package init(size: Int, filter: ResizeFilter = .lanczos) {
        precondition(size > 0, "an image has at least one pixel")
        self.size = size
        self.filter = filter
    }

    /// A stable text: equal texts mean equal pixels, so it may stand in a manifest and be compared.
    package var description: String {
        "center-crop square, resize \(size)x\(size) \(filter.rawValue) antialias"
    }

    /// A picture of `size` by `size`.
    package func apply(_ image: Image) -> Image {
        image.centerCroppedToSquare().resized(width: size, height: size, filter: filter)
    }
}
