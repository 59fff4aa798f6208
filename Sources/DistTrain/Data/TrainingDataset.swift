import TensorCore

// H, W, C: height, width and channels of a training sample.

/// Samples as the U-Net is trained on them: scaled latents, or pixels in [-1, 1], in NHWC fp32.
///
/// Datasets are read from the training thread and from a prefetching one, hence Sendable.
public protocol TrainingDataset: Sendable {
    /// What the dataset is called in messages and reports.
    var name: String { get }
    /// Number of samples.
    var count: Int { get }
    /// Shape of a sample: [height, width, channels].
    var height: Int { get }
    var width: Int { get }
    var channels: Int { get }
    /// A hash of what the samples are made from; equal on every host, so ranks and resumed runs can compare
    /// it.
    var fingerprint: String { get }
    /// The same as versions made it that did not hash all bytes of images, where they made another; see
    /// ``ImageSource/sampledFingerprint``.
    var earlierFingerprint: EarlierFingerprint? { get }
    /// What `prepare` wrote, where the samples come from there.
    var preparedFolder: PreparedFolder? { get }
    /// The class names, where the source has classes; sorted.
    var classNames: [String] { get }

    /// Writes one training sample.
    ///
    /// - Parameters:
    ///   - index: 0..<count.
    ///   - flipped: mirrored left to right; the caller decides it, see ``SampleKey/isFlipped``.
    ///   - key: what the posterior's noise is drawn by.
    ///   - out: [H, W, C], H·W·C values.
    /// - Throws: an error in one line where the sample cannot be read or decoded.
    func read(
        _ index: Int, flipped: Bool, key: SampleKey, into out: UnsafeMutableBufferPointer<Float>) throws

    /// The sample's class as a place in ``classNames``.
    func label(_ index: Int) -> Int?
}

extension TrainingDataset {
    /// Values of a sample: H·W·C.
    public var sampleSize: Int { height * width * channels }
    public var earlierFingerprint: EarlierFingerprint? { nil }
    public var preparedFolder: PreparedFolder? { nil }
    public var classNames: [String] { [] }
    public func label(_ index: Int) -> Int? { nil }

    /// One training sample as an array, [H, W, C].
    public func sample(_ index: Int, flipped: Bool = false, key: SampleKey) throws -> [Float] {
        var values = [Float](repeating: 0, count: sampleSize)
        try values.withUnsafeMutableBufferPointer { try read(index, flipped: flipped, key: key, into: $0) }
        return values
    }
}

/// What the random draws of one training sample depend on, and nothing else: no rank, no number of ranks.
public struct SampleKey: Sendable, Equatable {
    /// The run's seed.
    public var seed: UInt64
    /// The training step.
    public var step: UInt64
    /// The sample's place in the step's global batch.
    public var sample: UInt64

    public init(seed: UInt64, step: UInt64, sample: UInt64) {
        self.seed = seed
        self.step = step
        self.sample = sample
    }

    /// Whether the sample is mirrored, where the run flips: one fair coin.
    public var isFlipped: Bool {
        var random = CounterRandom(seed: seed, purpose: .flip, step: step, sample: sample)
        return random.next() >> 31 == 1
    }

    /// The noise of the posterior sample z = mean + exp(logvar / 2)·noise.
    var posteriorNoise: CounterRandom {
        CounterRandom(seed: seed, purpose: .posterior, step: step, sample: sample)
    }
}

/// A dataset, or a prepared folder, that cannot be used; in one line that says what to do.
public struct DatasetError: ReportableError, Equatable, Sendable {
    public enum Kind: Equatable, Sendable {
        /// The folder or file is missing, or cannot be read or written.
        case inaccessible
        /// A shard or the manifest is cut short, missing or damaged.
        case damaged
        /// The data were made from another source, transform or first stage than the one asked for.
        case mismatch
        /// Images that cannot be decoded.
        case badImages
        /// Options that do not go together.
        case usage
    }

    public let kind: Kind
    public let message: String
    /// `errno` of the failed file operation; 0 for any other reason.
    public let code: Int32

    public init(_ kind: Kind, _ message: String, code: Int32 = 0) {
        self.kind = kind
        self.message = message
        self.code = code
    }

    public var exitStatus: Int32 {
        ExitStatus.forSystemError(code, otherwise: kind == .usage ? ExitStatus.usage : ExitStatus.refused)
    }
}

/// A fingerprint by the rule of earlier versions. It is computed only when it is compared with a checkpoint that holds
/// such a one, because it reads files.
public struct EarlierFingerprint: Sendable, Equatable {
    private let compute: @Sendable () -> String

    init(_ compute: @escaping @Sendable () -> String) { self.compute = compute }

    /// Whether a fingerprint is of an earlier version and of the same data.
    func matches(_ fingerprint: String) -> Bool {
        !fingerprint.hasPrefix(SourceContent.prefix) && compute() == fingerprint
    }

    /// Equal datasets have equal fingerprints of the present rule; that is what is compared.
    public static func == (a: EarlierFingerprint, b: EarlierFingerprint) -> Bool { true }
}
