/// Converts a dataset image to a training image: center crop to a square, then resize.
package struct ImageTransform: Equatable, Sendable, CustomStringConvertible {
    /// Side of the result in pixels.
    package let size: Int
    package let filter: ResizeFilter

    package init(size: Int, filter: ResizeFilter = .lanczos) {
        precondition(size > 0, "an image has at least one pixel")
        self.size = size
        self.filter = filter
    }

    /// A stable description: equal descriptions imply equal pixels, so a manifest can store it for
    /// comparison.
    package var description: String {
        "center-crop square, resize \(size)x\(size) \(filter.rawValue) antialias"
    }

    /// Returns an image of `size` by `size` pixels.
    package func apply(_ image: Image) -> Image {
        image.centerCroppedToSquare().resized(width: size, height: size, filter: filter)
    }
}
