import Configuration
import Datasets
import Imaging
import LDMModel
import Support

/// Turns images into features, in fp32 always.
package final class FeatureExtractor {
    package let kind: FeatureKind
    /// Length of a feature, D.
    let dimension: Int
    /// Side of the images that it takes.
    let side: Int
    /// Tells features that can be compared from others: network, weights, and what is done to an image before.
    let fingerprint: String
    private let model: Model

    private enum Model {
        case inception(InceptionFeatures)
        /// Latents [h, w, c], averaged over blocks of `block` × `block`.
        case firstStage(FirstStage, height: Int, width: Int, block: Int)
        case pixels
    }

    /// The longest feature: a covariance has its square.
    static let maximumDimension = 2048
    /// Side of the picture whose pixels are compared.
    private static let pixelSide = 16

    /// FID's features, with the weights of a safetensors file.
    package init(inception path: String, side: Int) throws {
        let network = InceptionV3()
        try network.load(path)
        kind = .inception
        dimension = network.featureCount
        self.side = side
        fingerprint = contentHash([
            "inception, bilinear to 299", network.store.contentHash,
        ])
        model = .inception(InceptionFeatures(network))
    }

    /// Means of a first stage's latents, in blocks so large that a feature has no more than `maximumDimension` values.
    package init(_ firstStage: FirstStage, side: Int) throws {
        let (height, width) = try firstStage.latentSize(height: side, width: side)
        guard firstStage.imageChannels == 3 else {
            throw RunError(
                "the first stage takes images of \(firstStage.imageChannels) channels, expected 3; use --features pixel",
                exitStatus: ExitStatus.refused)
        }
        var block = 1
        func cells(_ length: Int) -> Int { (length + block - 1) / block }
        while cells(height) * cells(width) * firstStage.latentChannels > Self.maximumDimension, block < height
        {
            block += 1
        }
        // Its own passes in fp32, whatever the samples are decoded in.
        let stage = FirstStage(firstStage.model)
        kind = .vae
        dimension = cells(height) * cells(width) * firstStage.latentChannels
        self.side = side
        fingerprint = contentHash(["latents", firstStage.weightsHash, String(side), String(block)])
        model = .firstStage(stage, height: height, width: width, block: block)
    }

    /// Pixels of the image at 16 × 16, by exact averages over areas.
    package init(pixelsOf side: Int) {
        kind = .pixel
        dimension = Self.pixelSide * Self.pixelSide * 3
        self.side = side
        fingerprint = contentHash(["pixels, area to \(Self.pixelSide)"])
        model = .pixels
    }

    /// Features [images.count, D] of images of `side` × `side`.
    func callAsFunction(_ images: [Image]) throws -> [Float] {
        precondition(images.allSatisfy { $0.width == side && $0.height == side })
        switch model {
        case .inception(let extract):
            let pixels = images.flatMap { $0.pixels.map { Float($0) / 255 } }
            return extract(pixels, count: images.count, height: side, width: side)
        case .firstStage(let stage, let height, let width, let block):
            let pixels = images.flatMap { $0.floats() }
            let latents = try pixels.withUnsafeBufferPointer {
                try stage.encode($0, batch: images.count, height: side, width: side)
            }
            let size = height * width * stage.latentChannels
            return (0..<images.count).flatMap {
                Self.blockMeans(
                    latents.mean[$0 * size..<($0 + 1) * size], height: height, width: width,
                    channels: stage.latentChannels, block: block)
            }
        case .pixels:
            return images.flatMap {
                $0.resized(width: Self.pixelSide, height: Self.pixelSide, filter: .area).floats()
            }
        }
    }

    /// [h, w, c] to [⌈h/block⌉, ⌈w/block⌉, c]; the last block of a line may be smaller.
    private static func blockMeans(
        _ latent: ArraySlice<Float>, height: Int, width: Int, channels: Int, block: Int
    ) -> [Float] {
        if block == 1 { return Array(latent) }
        var means: [Float] = []
        for top in stride(from: 0, to: height, by: block) {
            for left in stride(from: 0, to: width, by: block) {
                let (rows, columns) = (top..<min(top + block, height), left..<min(left + block, width))
                for c in 0..<channels {
                    var sum: Float = 0
                    for y in rows {
                        for x in columns { sum += latent[latent.startIndex + (y * width + x) * channels + c] }
                    }
                    means.append(sum / Float(rows.count * columns.count))
                }
            }
        }
        return means
    }
}
