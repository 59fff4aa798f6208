import Support

// H, W, C: height, width and channels of a training sample.

/// Samples as the U-Net is trained on them: scaled latents, or pixels in [-1, 1], in NHWC fp32.
///
/// Datasets are read from the training thread and from a prefetching one, hence Sendable.
package protocol TrainingDataset: Sendable {
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
