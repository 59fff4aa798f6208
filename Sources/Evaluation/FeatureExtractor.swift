import Configuration
import Datasets
import Imaging
import LDMModel
import Support

/// Computes features of images, always in fp32.
package final class FeatureExtractor {
    package let kind: FeatureKind
    /// Feature dimension D.
    let dimension: Int
    /// Height and width of the input images.
    let side: Int
    /// Identifies comparable features: a hash of the network, its weights and the preprocessing.
    let fingerprint: String
    private let model: Model

    private enum Model {
        case inception(InceptionFeatures)
        /// Latents [h, w, c], averaged over blocks of `block` × `block`.
        case firstStage(FirstStage, height: Int, width: Int, block: Int)
        case pixels
    }

    /// Maximum feature dimension; a covariance has the square of that many elements.
    static let maximumDimension = 2048
    /// Height and width of the downscaled image whose pixels are compared.
    private static let pixelSide = 16

    /// FID's features, with the weights in a safetensors file.
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

    /// Block means of a first stage's latents, with blocks large enough that a feature has at most
    /// `maximumDimension` values.
    package init(_ firstStage: FirstStage, side: Int) throws {
        let (height, width) = try firstStage.latentSize(height: side, width: side)
        guard Image.channelCounts.contains(firstStage.imageChannels) else {
            throw RunError(
                "the first stage takes images of \(firstStage.imageChannels) channels, expected 3 or 1; use "
                    + "--features pixel",
                exitStatus: ExitStatus.refused)
        }
        var block = 1
        func cells(_ length: Int) -> Int { (length + block - 1) / block }
        while cells(height) * cells(width) * firstStage.latentChannels > Self.maximumDimension, block < height
        {
            block += 1
        }
        // A separate instance that computes in fp32, independent of the precision used for decoding samples.
        let stage = FirstStage(firstStage.model)
        kind = .vae
        dimension = cells(height) * cells(width) * firstStage.latentChannels
        self.side = side
        fingerprint = contentHash(["latents", firstStage.weightsHash, String(side), String(block)])
        model = .firstStage(stage, height: height, width: width, block: block)
    }

    /// The image's pixels, reduced to 16 × 16 by exact area averaging.
    package init(pixelsOf side: Int) {
        kind = .pixel
        dimension = Self.pixelSide * Self.pixelSide * 3
        self.side = side
        fingerprint = contentHash(["pixels, area to \(Self.pixelSide)"])
        model = .pixels
    }

    /// Features [images.count, D] of images of `side` × `side`.
    ///
    /// Networks and pixels take three channels, so a grayscale image has its channel replicated: distances are
    /// the same as those of RGB files with its gray levels. A first stage takes as many as it encodes.
    func callAsFunction(_ images: [Image]) throws -> [Float] {
        precondition(images.allSatisfy { $0.width == side && $0.height == side })
        switch model {
        case .inception(let extract):
            let pixels = images.flatMap { $0.converted(toChannels: 3).pixels.map { Float($0) / 255 } }
            return extract(pixels, count: images.count, height: side, width: side)
        case .firstStage(let stage, let height, let width, let block):
            let pixels = images.flatMap { $0.converted(toChannels: stage.imageChannels).floats() }
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
                $0.resized(width: Self.pixelSide, height: Self.pixelSide, filter: .area)
                    .converted(toChannels: 3).floats()
            }
        }
    }

    /// Averages [h, w, c] to [⌈h/block⌉, ⌈w/block⌉, c]; the last block of a row or column may be smaller.
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
