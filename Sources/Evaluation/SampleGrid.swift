import Imaging
import LDMModel

extension ImageGrid {
    /// Renders generated samples: one row per class if there are several classes, otherwise an approximately square
    /// grid.
    ///
    /// - Parameter images: sample i at index i.
    package static func render(samples images: [Image], _ classes: ClassSelection?) -> Image {
        guard let rows = classes?.classes.count, rows > 1, rows <= images.count else {
            return square(of: images.count).render(images)
        }
        let columns = (images.count + rows - 1) / rows
        let first = images[0]
        let blank = Image(
            width: first.width, height: first.height, channels: first.channels,
            pixels: [UInt8](repeating: 255, count: first.pixels.count))
        let ordered = (0..<rows).flatMap { row in
            (0..<columns).map { column in
                let sample = column * rows + row
                return sample < images.count ? images[sample] : blank
            }
        }
        return ImageGrid(columns: columns).render(ordered)
    }
}
