/// How an image of a dataset becomes a training image: centre crop to a square, then resizing.
public struct ImageTransform: Equatable, Sendable, CustomStringConvertible {
    /// The side of the result in pixels.
    public let size: Int
    public let filter: ResizeFilter

    public init(size: Int, filter: ResizeFilter = .lanczos) {
        precondition(size > 0, "an image has at least one pixel")
        self.size = size
        self.filter = filter
    }

    /// A stable text: equal texts mean equal pixels, so it may stand in a manifest and be compared.
    public var description: String {
        "center-crop square, resize \(size)x\(size) \(filter.rawValue) antialias"
    }

    /// A picture of `size` by `size`.
    public func apply(_ image: Image) -> Image {
        image.centerCroppedToSquare().resized(width: size, height: size, filter: filter)
    }
}
