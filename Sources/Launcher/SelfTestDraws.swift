import ArgumentParser
import Communication
import Datasets
import DistTrain
import Foundation
import LDMModel
import Support

extension SelfTestCommand {
    /// `disttrain self-test draws`: checks that the training data of a run depends only on its seed.
    struct Draws: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "draws",
            abstract:
                "Print a digest of all samples, timesteps and noise of a training run, equal for any number of ranks."
        )

        @Option(name: .long, help: "Training steps.")
        var steps = 100

        @Option(name: .long, help: "Samples in the global batch.")
        var batch = 12

        @Option(name: .long, help: "The run's seed.")
        var seed: UInt64 = 0

        func run() throws {
            try onAllRanks { communicator in
                let digest = try DrawsCheck(communicator, batch: batch, seed: seed).run(steps: steps)
                if communicator.isRoot { print("draws of \(steps) steps: \(digest)") }
            }
        }
    }
}

/// The keyed draws of training with a digest of all returned data. The digest is a sum over samples and
/// therefore independent of their order.
private final class DigestedDraws: DenoisingDraws {
    private let draws: KeyedDraws
    /// The sum of the samples' 32-bit checksums.
    private(set) var digest = 0

    init(_ draws: KeyedDraws) { self.draws = draws }

    var sampleCount: Int { draws.sampleCount }
    var height: Int { draws.height }
    var width: Int { draws.width }
    var channels: Int { draws.channels }

    func draw(
        _ item: BatchItem, clean: UnsafeMutableBufferPointer<Float>, noise: UnsafeMutableBufferPointer<Float>
    ) throws -> (timestep: Int, label: Int?) {
        let (timestep, label) = try draws.draw(item, clean: clean, noise: noise)
        var checksum = CRC32C()
        [UInt64(item.index), item.key.step, item.key.sample, UInt64(timestep)].withUnsafeBytes {
            checksum.update($0)
        }
        checksum.update(UnsafeRawBufferPointer(clean))
        checksum.update(UnsafeRawBufferPointer(noise))
        digest += Int(checksum.value)
        return (timestep, label)
    }
}

/// Trains a small U-Net on synthetic faces through `TrainingStep` and computes the digest of its input.
private struct DrawsCheck {
    private let communicator: Communicator
    private let step: TrainingStep
    private let draws: DigestedDraws

    init(_ communicator: Communicator, batch: Int, seed: UInt64) throws {
        self.communicator = communicator
        var config = UNet2DConfig()
        config.sampleSize = SpatialSize(8)
        config.blockOutChannels = [8]
        config.layersPerBlock = 1
        config.downBlockTypes = [.plain]
        config.upBlockTypes = [.plain]
        config.addAttention = false
        config.normNumGroups = 4
        let model = try UNet2DModel(config)
        model.store.initialize(seed: seed)
        let schedule = try NoiseSchedule(SchedulerConfig())
        draws = DigestedDraws(
            KeyedDraws(
                dataset: ImageDataset(syntheticFaces: 64, size: 8), flips: true, timesteps: schedule.count))
        step = TrainingStep(
            TrainingStep.Settings(
                seed: seed, batchSize: batch, microBatchSize: 2, clipNorm: 1),
            objective: DenoisingObjective(unet: model, draws: draws, schedule: schedule, minSNRGamma: nil),
            state: ModelState(model.store, ModelState.Settings(sharding: .optimizer), communicator),
            learningRate: LearningRate(
                peak: 1e-3, warmupSteps: 0, shape: .constant, final: 0, totalSteps: 1),
            communicator: communicator)
    }

    func run(steps: Int) throws -> String {
        for number in 0..<steps { _ = try step(number) }
        try step.completeWeights()
        return String(try communicator.allReduceSum(draws.digest), radix: 16)
    }
}
