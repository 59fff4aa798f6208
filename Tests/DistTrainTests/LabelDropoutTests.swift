import Datasets
import DistTrain
import TensorCore
import Testing
import TestSupport

/// A dataset of three classes.
private struct LabelledDataset: TrainingDataset {
    private let base = NormalDataset(count: 30)
    var name: String { base.name }
    var count: Int { base.count }
    var height: Int { base.height }
    var width: Int { base.width }
    var channels: Int { base.channels }
    var fingerprint: String { base.fingerprint }
    var classNames: [String] { ["a", "b", "c"] }
    func label(_ index: Int) -> Int? { index % 3 }

    func read(
        _ index: Int, flipped: Bool, key: SampleKey, into out: UnsafeMutableBufferPointer<Float>
    ) throws { try base.read(index, flipped: flipped, key: key, into: out) }
}

@Suite struct LabelDropoutTests {
    /// Draws for 4,000 samples of one seed.
    private static func draws(_ dropout: LabelDropout?) throws -> [(index: Int, timestep: Int, label: Int?)] {
        let draws = KeyedDraws(
            dataset: LabelledDataset(), flips: false, timesteps: 1000, labelDropout: dropout)
        var clean = [Float](repeating: 0, count: 8 * 8 * 3)
        var noise = clean
        return try (0..<4000).map { number in
            let item = BatchItem(
                index: number % 30,
                key: SampleKey(seed: 3, step: UInt64(number / 64), sample: UInt64(number % 64)))
            let draw = try clean.withUnsafeMutableBufferPointer { clean in
                try noise.withUnsafeMutableBufferPointer { noise in
                    try draws.draw(item, clean: clean, noise: noise)
                }
            }
            return (item.index, draw.timestep, draw.label)
        }
    }

    @Test func dropsTheConfiguredShareOfLabels() throws {
        let dropped = try Self.draws(LabelDropout(probability: 0.25, nullClass: 3))
        let share = Double(dropped.count { $0.label == 3 }) / Double(dropped.count)
        // Four standard deviations of 4,000 draws are 0.027.
        #expect(abs(share - 0.25) < 0.027)
        #expect(dropped.allSatisfy { $0.label == 3 || $0.label == $0.index % 3 })
        // The same keys give the same labels, on any rank.
        let again = try Self.draws(LabelDropout(probability: 0.25, nullClass: 3))
        #expect(zip(dropped, again).allSatisfy { $0.label == $1.label })
    }

    @Test func otherDrawsDoNotDependOnDropout() throws {
        let with = try Self.draws(LabelDropout(probability: 0.5, nullClass: 3))
        let without = try Self.draws(nil)
        #expect(zip(with, without).allSatisfy { $0.timestep == $1.timestep })
        #expect(without.allSatisfy { $0.label == $0.index % 3 })
    }
}
