/// Tiles images in rows, as in sample grids.
package struct ImageGrid: Sendable {
    package let columns: Int
    /// The gap between and around the images, in pixels.
    package let padding: Int
    /// The gray level of the gap, 0 to 255.
    package let background: UInt8

    package init(columns: Int, padding: Int = 2, background: UInt8 = 255) {
        precondition(columns > 0 && padding >= 0)
        (self.columns, self.padding, self.background) = (columns, padding, background)
    }

    /// An approximately square grid.
    package static func square(of count: Int, padding: Int = 2) -> ImageGrid {
        var columns = 1
        while columns * columns < count { columns += 1 }
        return ImageGrid(columns: columns, padding: padding)
    }

    /// Tiles the images row by row. All cells have the size of the largest image; unused cells stay empty. The
    /// grid is grayscale if all images are.
    package func render(_ images: [Image]) -> Image {
        precondition(!images.isEmpty, "a grid has at least one picture")
        let cellWidth = images.map(\.width).max() ?? 1
        let cellHeight = images.map(\.height).max() ?? 1
        let across = min(columns, images.count)
        let down = (images.count + columns - 1) / columns
        let width = across * (cellWidth + padding) + padding
        let height = down * (cellHeight + padding) + padding
        let channels = images.map(\.channels).max() ?? 3
        var pixels = [UInt8](repeating: background, count: channels * width * height)
        for (index, image) in images.enumerated() {
            let image = image.converted(toChannels: channels)
            let x = padding + index % columns * (cellWidth + padding)
            let y = padding + index / columns * (cellHeight + padding)
            for row in 0..<image.height {
                let to = channels * ((y + row) * width + x)
                let count = channels * image.width
                pixels.replaceSubrange(
                    to..<to + count, with: image.pixels[row * count..<(row + 1) * count])
            }
        }
        return Image(width: width, height: height, channels: channels, pixels: pixels)
    }
}
