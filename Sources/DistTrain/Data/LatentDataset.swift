import Foundation
import TensorCore

/// Latents that `prepare` wrote: only the samples that a rank reads enter its memory.
///
/// A sample is (z - shift)·scaling, where z = mean + exp(logvar / 2)·noise is drawn from the posterior anew
/// at every visit, or is the latent itself where the first stage has no posterior. A mirrored sample is the
/// encoder's latent of the mirrored image where the folder holds those, since an encoder commutes with
/// mirroring only roughly; without them the latent itself is mirrored.
public final class LatentDataset: TrainingDataset {
    public let folder: PreparedFolder
    /// What latents are multiplied by.
    public let scalingFactor: Float
    /// What is subtracted before.
    public let shiftFactor: Float

    /// - Parameters:
    ///   - scalingFactor: nil takes what the first stage's configuration said when the folder was prepared.
    ///   - shiftFactor: likewise.
    public init(
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

    public var name: String { folder.path }
    public var count: Int { folder.manifest.count }
    public var height: Int { folder.manifest.height }
    public var width: Int { folder.manifest.width }
    public var channels: Int { folder.manifest.channels }
    public var fingerprint: String { folder.fingerprint }
    public var preparedFolder: PreparedFolder? { folder }
    public var classNames: [String] { folder.manifest.classNames }
    public func label(_ index: Int) -> Int? { folder.label(index) }

    public func read(
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
                    // diffusers clamps the log-variance so; it was stored as the encoder gave it.
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

    /// The element that lands at `i` of [H, W, C].
    private func source(_ i: Int, _ mirror: Bool) -> Int {
        guard mirror else { return i }
        let (pixel, c) = i.quotientAndRemainder(dividingBy: channels)
        let (y, x) = pixel.quotientAndRemainder(dividingBy: width)
        return (y * width + (width - 1 - x)) * channels + c
    }
}
