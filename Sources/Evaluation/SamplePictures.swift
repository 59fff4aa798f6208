import Communication
import Foundation
import Imaging
import LDMModel

/// Draws samples as pictures: every rank denoises and decodes its share, rank 0 receives them all.
package final class SamplePictures {
    let generator: SampleGenerator
    let firstStage: FirstStage?
    let communicator: any Communicator

    /// - Parameter firstStage: decodes latents; nil in pixel space.
    package init(_ generator: SampleGenerator, firstStage: FirstStage?, communicator: any Communicator) {
        self.generator = generator
        self.firstStage = firstStage
        self.communicator = communicator
    }

    /// What one rank made.
    package struct Share {
        /// Which samples.
        package let range: Range<Int>
        /// [B, H, W, C], scaled latents or pixels in [-1, 1].
        package let latents: [Float]
        package let images: [Image]
    }

    /// This rank's part of `count` samples; rank 0's is never smaller than another's.
    package func share(of count: Int) -> Range<Int> {
        func start(_ rank: Int) -> Int { (count * rank + communicator.size - 1) / communicator.size }
        return start(communicator.rank)..<start(communicator.rank + 1)
    }

    /// Draws this rank's share of samples 0..<count.
    ///
    /// - Parameters:
    ///   - initial: initial noise of all samples, [count, H, W, C], or nil for the seed's own.
    ///   - progress: see `SampleGenerator.generate`.
    package func draw(
        _ count: Int, _ settings: SamplingSettings, initial: [Float]? = nil,
        observe: ((DenoisingMoment) -> Void)? = nil, progress: ((Int) throws -> Void)? = nil
    ) throws -> Share {
        let range = share(of: count)
        let size = generator.sampleSize
        let mine = initial.map { Array($0[range.lowerBound * size..<range.upperBound * size]) }
        let latents = try generator.generate(
            range, settings, initial: mine, observe: observe, progress: progress)
        return Share(range: range, latents: latents, images: try decode(latents, count: range.count))
    }

    /// Whether samples can be shown: a first stage's images, or pixels. Latents without their first stage cannot.
    package var areVisible: Bool { firstStage != nil || [1, 3].contains(generator.channels) }

    /// Decodes latents [B, H, W, C] as the U-Net knows them into pictures; none where they cannot be shown.
    package func decode(_ latents: [Float], count: Int) throws -> [Image] {
        guard count > 0, areVisible else { return [] }
        var pixels = latents
        var (height, width) = (generator.height, generator.width)
        if let firstStage {
            pixels = firstStage.unscaled(latents).withUnsafeBufferPointer {
                firstStage.decode($0, batch: count, height: height, width: width)
            }
            height *= firstStage.downsamplingFactor
            width *= firstStage.downsamplingFactor
        }
        let size = pixels.count / count
        return try (0..<count).map { index in
            try Image(
                width: width, height: height, samples: Array(pixels[index * size..<(index + 1) * size]))
        }
    }

    /// All pictures on rank 0, in order; nil elsewhere.
    package func gather(_ share: Share, count: Int) throws -> [Image]? { try gather(share.images) }

    /// All ranks' pictures, of one size, on rank 0, in the order of the ranks; nil elsewhere.
    func gather(_ images: [Image]) throws -> [Image]? {
        let bytes = images.reduce(into: [UInt8]()) { $0 += $1.pixels }
        guard let everyone = try communicator.gather(bytes, root: 0), let first = images.first else {
            return communicator.isRoot ? [] : nil
        }
        let (width, height) = (first.width, first.height)
        return everyone.flatMap { bytes in
            stride(from: 0, to: bytes.count, by: width * height * 3).map { start in
                Image(
                    width: width, height: height, pixels: Array(bytes[start..<start + width * height * 3]))
            }
        }
    }
}
