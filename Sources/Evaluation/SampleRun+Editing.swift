import Communication
import Datasets
import Foundation
import Imaging
import LDMModel
import Support

// `sample --from-image` and `--mask`: samples that start from given images.

/// The images of `sample --from-image`, and how they are changed.
package struct ImageEdit: Sendable {
    /// An image file, or any source that `prepare` reads.
    let images: String
    /// An image whose bright part is repainted; nil: everything changes.
    let mask: String?
    let settings: EditSettings

    package init(images: String, mask: String?, settings: EditSettings) {
        (self.images, self.mask, self.settings) = (images, mask, settings)
    }
}

extension SampleRun {
    /// The given images, opened: sample i starts from image i modulo their number.
    struct OpenedImages {
        let edit: ImageEdit
        let source: any ImageSource
        /// One value per cell of a latent; see `GivenSamples`.
        let mask: [Bool]?
    }

    /// Opens the images and the mask. Collective.
    func openImages(
        _ edit: ImageEdit, _ pictures: SamplePictures, _ communicator: Communicator
    ) throws -> OpenedImages {
        let isFile = ItemNames.isImage(edit.images)
        let sources = try SharedSources(
            isFile ? [] : [edit.images], skipBad: false, readsContent: false, on: communicator)
        return try communicator.collectively("opening \(edit.images)") {
            let source: any ImageSource =
                isFile
                ? try SingleImage(edit.images)
                : try sources.open(edit.images, size: pictures.imageSize.width)
            guard source.count > 0 else {
                throw RunError(
                    "\(edit.images): no pictures, expected at least one", exitStatus: ExitStatus.refused)
            }
            return OpenedImages(edit: edit, source: source, mask: try readMask(edit, source, pictures))
        }
    }

    private func readMask(
        _ edit: ImageEdit, _ source: any ImageSource, _ pictures: SamplePictures
    ) throws -> [Bool]? {
        guard let path = edit.mask else { return nil }
        let mask = try Image.read(path)
        for index in 0..<source.count {
            guard let size = try source.size(at: index), size != (mask.width, mask.height) else { continue }
            throw RunError(
                "\(path): \(mask.width)x\(mask.height) pixels, but \(source.itemName(at: index)) of \(edit.images) "
                    + "has \(size.width)x\(size.height), expected equal sizes", exitStatus: ExitStatus.refused
            )
        }
        let cells = pictures.repaintedCells(of: mask)
        guard cells.contains(true) else {
            throw RunError(
                "\(path): all of it is black, so nothing would be repainted; expected white where to repaint",
                exitStatus: ExitStatus.refused)
        }
        return cells
    }
}

extension SampleRun.OpenedImages {
    /// The images that samples `range` start from, as the model represents them.
    func given(_ range: Range<Int>, _ pictures: SamplePictures) throws -> GivenSamples {
        var encoded: [Int: [Float]] = [:]
        var values: [Float] = []
        for sample in range {
            let index = sample % source.count
            if encoded[index] == nil {
                let image = pictures.fitted(try source.image(at: index)).converted(
                    toChannels: pictures.channels)
                encoded[index] = try pictures.encode([image])
            }
            values += encoded[index] ?? []
        }
        return GivenSamples(values: values, mask: mask, settings: edit.settings)
    }
}

extension SamplePictures {
    /// The image in the size of the samples: the largest part in its center with their aspect ratio, resized.
    func fitted(_ image: Image) -> Image {
        let (height, width) = imageSize
        if height == width { return ImageTransform(size: width).apply(image) }
        let (w, h) = (
            min(image.width, max(1, image.height * width / height)),
            min(image.height, max(1, image.width * height / width))
        )
        return image.cropped(x: (image.width - w) / 2, y: (image.height - h) / 2, width: w, height: h)
            .resized(width: width, height: height)
    }

    /// For each cell of a latent (or pixel), whether any of its pixels is brighter than medium gray, [H, W].
    func repaintedCells(of mask: Image) -> [Bool] {
        let image = fitted(mask).converted(toChannels: 1)
        let factor = imageSize.width / generator.width
        var cells = [Bool](repeating: false, count: generator.height * generator.width)
        for y in 0..<image.height {
            for x in 0..<image.width {
                if image.pixels[y * image.width + x] > 127 {
                    cells[y / factor * generator.width + x / factor] = true
                }
            }
        }
        return cells
    }
}

/// An image file as a source.
private struct SingleImage: ImageSource {
    let name: String
    let count = 1
    let content: SourceContent? = nil
    private let image: Image

    init(_ path: String) throws(ImageError) {
        name = path
        image = try Image.read(path)
    }

    func image(at index: Int) -> Image { image }
    func itemName(at index: Int) -> String { (name as NSString).lastPathComponent }
    func size(at index: Int) -> (width: Int, height: Int)? { (image.width, image.height) }
    func label(at index: Int) -> String? { nil }
}
