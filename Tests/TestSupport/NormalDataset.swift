import Datasets
import TensorCore

/// A dataset of normally distributed samples, some of which may be damaged.
package struct NormalDataset: TrainingDataset {
    package let name = "normal"
    package var count = 20
    package var height = 8
    package var width = 8
    package var channels = 3
    /// Samples in which one value is NaN.
    package var damaged: Set<Int> = []
    package var fingerprint: String { "normal" }

    package init(count: Int = 20, height: Int = 8, width: Int = 8, channels: Int = 3, damaged: Set<Int> = [])
    {
        (self.height, self.width, self.channels) = (height, width, channels)
        self.count = count
        self.damaged = damaged
    }

    package func read(
        _ index: Int, flipped: Bool, key: SampleKey, into out: UnsafeMutableBufferPointer<Float>
    ) throws {
        var random = CounterRandom(seed: 1, purpose: .test, sample: UInt64(index))
        random.fillNormal(out)
        if damaged.contains(index) { out[out.count / 2] = .nan }
    }
}
