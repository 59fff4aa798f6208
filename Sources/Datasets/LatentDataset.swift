import Foundation

/// Samples written by `prepare`, which the folder describes.
package protocol PreparedDataset: TrainingDataset {
    var folder: PreparedFolder { get }
}

extension PreparedDataset {
    package var name: String { folder.path }
    package var count: Int { folder.manifest.count }
    package var height: Int { folder.manifest.height }
    package var width: Int { folder.manifest.width }
    package var channels: Int { folder.manifest.channels }
    package var fingerprint: String { folder.fingerprint }
    package var preparedFolder: PreparedFolder? { folder }
    package var classNames: [String] { folder.manifest.classNames }
    package func label(_ index: Int) -> Int? { folder.label(index) }
}

/// Latents written by `prepare`. Only the samples that a rank uses are read into its memory.
///
/// A sample is (z - shift)·scaling, where z = mean + exp(logvar / 2)·noise is drawn from the posterior at
/// each visit, or is the stored latent if the first stage has no posterior. A mirrored sample is the
/// encoder's latent of the mirrored image if the folder has those, because an encoder is only approximately
/// equivariant to mirroring; otherwise the latent itself is mirrored.
package final class LatentDataset: PreparedDataset {
    package let folder: PreparedFolder
    /// Latents are multiplied by this.
    package let scalingFactor: Float
    /// Subtracted from latents before scaling.
    package let shiftFactor: Float

    /// - Parameters:
    ///   - scalingFactor: nil for the value in the first stage's configuration when the folder was prepared.
    ///   - shiftFactor: likewise.
    package init(
        _ folder: PreparedFolder, scalingFactor: Double? = nil, shiftFactor: Double? = nil
    ) throws(DatasetError) {
        guard folder.manifest.job.kind == .latents else {
            throw DatasetError(.mismatch, "\(folder.path): holds pixels, expected latents")
        }
        self.folder = folder
        self.scalingFactor = Float(scalingFactor ?? folder.manifest.firstStage?.scalingFactor ?? 1)
        self.shiftFactor = Float(
            scalingFactor == nil ? folder.manifest.firstStage?.shiftFactor ?? 0 : shiftFactor ?? 0)
    }

    package func read(
        _ index: Int, flipped: Bool, key: SampleKey, into out: UnsafeMutableBufferPointer<Float>
    ) throws {
        precondition(out.count == sampleSize, "\(out.count) values for a sample of \(sampleSize)")
        let storesFlipped = flipped && folder.manifest.job.flip
        let mirror = flipped && !storesFlipped
        let suffix = storesFlipped ? "_flipped" : ""
        guard folder.manifest.hasPosterior else {
            return try folder.withSample("latent" + suffix, index) { latent in
                for i in 0..<out.count {
                    out[i] = (float(latent, source(i, mirror)) - shiftFactor) * scalingFactor
                }
            }
        }
        try folder.withSample("mean" + suffix, index) { mean in
            try folder.withSample("logvar" + suffix, index) { logvar in
                var noise = key.posteriorNoise
                for i in 0..<out.count {
                    let from = source(i, mirror)
                    // diffusers clamps the log-variance to this range; it is stored unclamped.
                    let deviation = exp(0.5 * min(max(float(logvar, from), -30), 20))
                    let z = float(mean, from) + deviation * noise.normal()
                    out[i] = (z - shiftFactor) * scalingFactor
                }
            }
        }
    }

    private func float(_ bytes: UnsafeRawBufferPointer, _ index: Int) -> Float {
        Float(
            bitPattern: UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4 * index, as: UInt32.self)))
    }

    /// The index of the element that is written to index `i` of [H, W, C].
    private func source(_ i: Int, _ mirror: Bool) -> Int {
        guard mirror else { return i }
        let (pixel, c) = i.quotientAndRemainder(dividingBy: channels)
        let (y, x) = pixel.quotientAndRemainder(dividingBy: width)
        return (y * width + (width - 1 - x)) * channels + c
    }
}
