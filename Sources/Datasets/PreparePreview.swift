import Communication
import Imaging
import LDMModel

// B: images; H, W, C: image; h, w, c: latent.

/// Writes a preview of the first decodable images, up to 8 by 8, as they are used in training; for latents,
/// next to their reconstructions by the first stage. All ranks decode a share; rank 0 writes.
func writePreview(_ maker: ShardMaker, to path: String, _ communicator: Communicator) throws {
    let size = maker.job.imageSize
    // Decoding costs, per megapixel, about as much as encoding 100 training samples; limit the preview to a
    // few seconds.
    let budget = maker.firstStage == nil ? 64 : (64 * 128 * 128) / (size * size)
    let most = [64, 36, 16, 9, 4].first { $0 <= budget } ?? 1
    var originals: [Image] = []
    let chosen = try communicator.fromRoot("drawing the preview") {
        var items: [Int] = []
        for start in stride(from: 0, to: maker.job.itemCount, by: most) where items.count < most {
            for (index, result) in maker.decode(start..<min(start + most, maker.job.itemCount)) {
                guard case .success(let image) = result, items.count < most else { continue }
                items.append(index)
                originals.append(image)
            }
        }
        return items
    }
    var own: [Image] = []
    try communicator.collectively("drawing the preview") {
        guard let firstStage = maker.firstStage else { return }
        try asDatasetError {
            for place in stride(from: communicator.rank, to: chosen.count, by: communicator.size) {
                let item = chosen[place]
                let image =
                    communicator.isRoot ? originals[place] : try maker.decode(item..<item + 1)[0].result.get()
                own.append(try rebuild(image, firstStage))
            }
        }
    }
    let pixels = own.flatMap(\.pixels)
    let gathered = try communicator.gather(pixels, root: 0)
    try communicator.collectively("writing the preview") {
        guard communicator.isRoot, let gathered, !originals.isEmpty else { return }
        var rebuilt = originals
        for (rank, bytes) in gathered.enumerated() where maker.firstStage != nil {
            for (turn, place) in stride(from: rank, to: originals.count, by: communicator.size).enumerated() {
                let count = maker.transform.byteCount
                rebuilt[place] = Image(
                    width: size, height: size, channels: maker.transform.channels,
                    pixels: Array(bytes[turn * count..<(turn + 1) * count]))
            }
        }
        let grids = (maker.firstStage == nil ? [originals] : [originals, rebuilt]).map { images in
            // Limit the size, so that image viewers can open the grid.
            let cells =
                size > 256 ? images.map { $0.resized(width: 256, height: 256, filter: .area) } : images
            return ImageGrid.square(of: cells.count).render(cells)
        }
        try asDatasetError { try ImageGrid(columns: 2, padding: 4).render(grids).write(to: path) }
    }
}

/// Encodes and decodes an image: [H, W, C] to [h, w, c] to [H, W, C].
private func rebuild(_ image: Image, _ firstStage: FirstStage) throws -> Image {
    let encoded = try image.floats().withUnsafeBufferPointer {
        try firstStage.encode($0, batch: 1, height: image.height, width: image.width)
    }
    let decoded = encoded.mean.withUnsafeBufferPointer {
        firstStage.decode($0, batch: 1, height: encoded.shape[1], width: encoded.shape[2])
    }
    return Image(width: image.width, height: image.height, floats: decoded)
}
