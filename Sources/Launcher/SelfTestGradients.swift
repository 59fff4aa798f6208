import ArgumentParser
import Communication
import Datasets
import DistTrain
import Foundation
import LDMModel
import Supervision
import Support

extension SelfTestCommand {
    /// `disttrain self-test gradients`: checks that data parallelism computes the gradient of a single rank.
    struct Gradients: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "gradients",
            abstract:
                "Compare the gradient that all ranks compute together with that of rank 0 alone.")

        @Option(name: .long, help: "Samples in the global batch.")
        var batch = 7

        @Option(name: .long, help: "Samples per micro-batch in the run on all ranks.")
        var microBatch = 2

        func run() throws {
            try onAllRanks { communicator in
                try GradientCheck(communicator, batch: batch, microBatch: microBatch).run()
            }
        }
    }
}

extension UNet2DConfig {
    /// A small model that contains every kind of layer for which ranks could diverge.
    static var selfTest: UNet2DConfig {
        var config = UNet2DConfig()
        config.sampleSize = SpatialSize(16)
        config.blockOutChannels = [16, 32]
        config.layersPerBlock = 1
        config.downBlockTypes = [.plain, .attention]
        config.upBlockTypes = [.attention, .plain]
        config.attentionHeadDim = 16
        config.normNumGroups = 8
        config.dropout = 0.2
        return config
    }
}

/// One training step of a small U-Net on synthetic faces, first on all ranks and then on rank 0 alone. Both
/// use `TrainingStep`, so the shares, micro-batches, buckets, noise keys and dropout keys are those of
/// training.
private struct GradientCheck {
    /// Maximum error relative to the norm. A different summation order causes about 1e-7.
    private static let allowed = 1e-5

    private let communicator: Communicator
    private let batch: Int
    private let microBatch: Int

    init(_ communicator: Communicator, batch: Int, microBatch: Int) throws {
        guard batch >= communicator.size, microBatch > 0 else {
            throw LaunchError(
                "--batch \(batch) --micro-batch \(microBatch): expected at least one sample per rank",
                exitStatus: ExitStatus.usage)
        }
        (self.communicator, self.batch, self.microBatch) = (communicator, batch, microBatch)
    }

    func run() throws {
        let together = try gradient(on: communicator, microBatch: microBatch)
        // Collective, so that no rank exits while rank 0 computes.
        let error = try communicator.fromRoot("computing the whole batch on one rank") {
            relativeNorm(together.gradient, try gradient(on: Communicator(), microBatch: nil).gradient)
        }
        // The bits must be identical on all ranks: replicas that start equal stay equal.
        let checksum = together.gradient.reduce(UInt64(0)) { ($0 &* 31) &+ UInt64($1.bitPattern) }
        guard try communicator.allEqual(checksum) else {
            throw LaunchError(
                "self-test: the gradients differ between ranks, expected identical bits", exitStatus: 1)
        }
        guard error <= Self.allowed else {
            throw LaunchError(
                "self-test: the gradient of \(communicator.size) ranks has a relative error of \(error), expected at "
                    + "most \(Self.allowed)", exitStatus: 1)
        }
        if communicator.isRoot {
            print(
                "gradients on \(communicator.size) ranks: relative error \(String(format: "%.1e", error)) over "
                    + "\(together.gradient.count) values, norm \(String(format: "%.4f", together.norm))")
        }
    }

    /// The gradient of the global batch of step 0, as passed to the optimizer.
    private func gradient(
        on communicator: Communicator, microBatch: Int?
    ) throws -> (gradient: [Float], norm: Double) {
        let model = try UNet2DModel.forTraining(.selfTest)
        model.store.initialize(seed: 1)
        let objective = DenoisingObjective(
            unet: model, dataset: ImageDataset(syntheticFaces: 64, size: 16),
            schedule: try NoiseSchedule(SchedulerConfig()), minSNRGamma: 5, flips: true)
        let step = TrainingStep(
            TrainingStep.Settings(
                seed: 2, batchSize: batch, microBatchSize: microBatch, clipNorm: nil),
            objective: objective,
            state: ModelState(model.store, ModelState.Settings(sharding: .none), communicator),
            learningRate: LearningRate(
                peak: 0, warmupSteps: 0, shape: .constant, final: 0, totalSteps: 1),
            communicator: communicator)
        let norm = try step(0).gradientNorm
        let gradient = UnsafeBufferPointer(start: model.store.gradients, count: model.store.count)
        return (Array(gradient), norm)
    }

    /// ‖a − b‖ / ‖b‖
    private func relativeNorm(_ a: [Float], _ b: [Float]) -> Double {
        var difference = 0.0
        var norm = 0.0
        for (x, y) in zip(a, b) {
            difference += (Double(x) - Double(y)) * (Double(x) - Double(y))
            norm += Double(y) * Double(y)
        }
        let error = (difference / norm).squareRoot()
        return error.isFinite ? error : .infinity
    }
}
