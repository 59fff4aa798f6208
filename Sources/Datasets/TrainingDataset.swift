import Support
import TensorCore

// H, W, C: height, width and channels of a training sample.

/// Training samples for the U-Net: scaled latents, or pixels in [-1, 1], in NHWC fp32.
///
/// `Sendable`, because the training thread and a prefetch thread read them.
package protocol TrainingDataset: Sendable {
    /// The dataset's name in messages and reports.
    var name: String { get }
    /// Number of samples.
    var count: Int { get }
    /// Shape of a sample: [height, width, channels].
    var height: Int { get }
    var width: Int { get }
    var channels: Int { get }
    /// A hash of the content that the samples are made from; identical on all hosts, so that ranks and
    /// resumed runs can compare it.
    var fingerprint: String { get }
    /// The fingerprint of earlier versions, which did not hash all bytes of images, if it differs; see
    /// ``ImageSource/sampledFingerprint``.
    var earlierFingerprint: EarlierFingerprint? { get }
    /// The prepared folder that the samples come from, if any.
    var preparedFolder: PreparedFolder? { get }
    /// The class names in the order of the labels; empty if there are no classes.
    var classNames: [String] { get }

    /// Writes one training sample.
    ///
    /// - Parameters:
    ///   - index: 0..<count.
    ///   - flipped: whether to mirror it left to right; decided by the caller, see ``SampleKey/isFlipped``.
    ///   - key: the key of the posterior's noise.
    ///   - out: [H, W, C], H·W·C values.
    /// - Throws: an error with a one-line message if the sample cannot be read or decoded.
    func read(
        _ index: Int, flipped: Bool, key: SampleKey, into out: UnsafeMutableBufferPointer<Float>) throws

    /// The sample's class as an index into ``classNames``.
    func label(_ index: Int) -> Int?
}

extension TrainingDataset {
    /// Number of values in a sample: H·W·C.
    package var sampleSize: Int { height * width * channels }
    package var earlierFingerprint: EarlierFingerprint? { nil }
    package var preparedFolder: PreparedFolder? { nil }
    package var classNames: [String] { [] }
    package func label(_ index: Int) -> Int? { nil }

    /// One training sample as an array, [H, W, C].
    package func sample(_ index: Int, flipped: Bool = false, key: SampleKey) throws -> [Float] {
        var values = [Float](repeating: 0, count: sampleSize)
        try values.withUnsafeMutableBufferPointer { try read(index, flipped: flipped, key: key, into: $0) }
        return values
    }
}

/// The key of all random draws for one training sample. It does not depend on the rank or the number of
/// ranks.
package struct SampleKey: Sendable, Equatable {
    /// The run's seed.
    package var seed: UInt64
    /// The training step.
    package var step: UInt64
    /// The sample's index in the step's global batch.
    package var sample: UInt64

    package init(seed: UInt64, step: UInt64, sample: UInt64) {
        (self.seed, self.step, self.sample) = (seed, step, sample)
    }

    /// Whether the sample is mirrored if flipping is enabled; true with probability 1/2.
    package var isFlipped: Bool {
        var random = CounterRandom(seed: seed, purpose: .flip, step: step, sample: sample)
        return random.next() >> 31 == 1
    }

    /// The noise for the posterior sample z = mean + exp(logvar / 2)·noise.
    var posteriorNoise: CounterRandom {
        CounterRandom(seed: seed, purpose: .posterior, step: step, sample: sample)
    }
}

/// A dataset or prepared folder that cannot be used; the message is one line with the remedy.
package struct DatasetError: ReportableError, Equatable, Sendable {
    package enum Kind: Equatable, Sendable {
        /// The folder or file is missing, or cannot be read or written.
        case inaccessible
        /// A shard or the manifest is truncated, missing or damaged.
        case damaged
        /// The data was made from another source, transform or first stage than requested.
        case mismatch
        /// Images that cannot be decoded.
        case badImages
        /// Incompatible options.
        case usage
    }

    package let kind: Kind
    package let message: String
    /// `errno` of the failed file operation; 0 for any other reason.
    package let code: Int32

    package init(_ kind: Kind, _ message: String, code: Int32 = 0) {
        (self.kind, self.message, self.code) = (kind, message, code)
    }

    package var exitStatus: Int32 {
        ExitStatus.forSystemError(code, otherwise: kind == .usage ? ExitStatus.usage : ExitStatus.refused)
    }
}
