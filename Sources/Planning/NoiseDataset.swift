import Datasets
import LDMModel
import TensorCore

/// A dataset of standard normal samples of any shape, for benchmarks.
struct NoiseDataset: TrainingDataset {
    let name = "noise"
    let count: Int
    let size: SpatialSize
    let channels: Int
    var height: Int { size.height }
    var width: Int { size.width }
    var fingerprint: String { "noise-\(count)-\(height)x\(width)x\(channels)" }

    func read(
        _ index: Int, flipped: Bool, key: SampleKey, into out: UnsafeMutableBufferPointer<Float>
    ) throws {
        var random = CounterRandom(seed: 0, purpose: .test, sample: UInt64(index))
        random.fillNormal(out)
    }
}

/// Standard normal numbers, the same in every run.
func noise(_ count: Int) -> [Float] {
    var values = [Float](repeating: 0, count: count)
    var random = CounterRandom(seed: 0, purpose: .test)
    values.withUnsafeMutableBufferPointer { random.fillNormal($0) }
    return values
}

extension UNet2DConfig {
    /// The image size for timing the model: its own, or 32×32 if it accepts any size.
    var timedSize: SpatialSize { sampleSize ?? SpatialSize(32) }
}
