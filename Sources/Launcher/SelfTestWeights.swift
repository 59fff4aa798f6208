import ArgumentParser
import Communication
import Datasets
import DistTrain
import Foundation
import LDMModel
import Supervision
import TensorCore

extension SelfTestCommand {
    /// `disttrain self-test weights`: checks that weights in flight when a step begins have arrived before
    /// they are read.
    struct Weights: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "weights",
            abstract:
                "Compare training with an overlapped all-gather of weights to training with a blocking one.")

        @Option(name: .long, help: "Training steps of each run.")
        var steps = 4

        func run() throws {
            try onAllRanks { communicator in try WeightCheck(communicator, steps: steps).run() }
        }
    }
}

/// Trains a small U-Net for some steps, with the ranks on one host and with simulated layouts on several
/// hosts. Ranks begin their steps at different times, so a weight that is read too early is an outdated one:
/// losses and weights must be bitwise identical.
private struct WeightCheck {
    private let communicator: Communicator
    private let steps: Int

    init(_ communicator: Communicator, steps: Int) {
        self.communicator = communicator
        self.steps = steps
    }

    func run() throws {
        var count = 0
        for dtype in [DType.float32, .bfloat16] {
            let expected = try train(dtype, on: nil)
            for hosts in layouts {
                guard try train(dtype, on: hosts) == expected else {
                    throw LaunchError(
                        "self-test: \(dtype) on hosts \(hosts.hosts): losses or weights differ from those of one host",
                        exitStatus: 1)
                }
                count += 1
            }
        }
        if communicator.isRoot {
            print("weights on \(communicator.size) ranks: \(count) runs with simulated hosts, all identical")
        }
    }

    /// One host per rank; two hosts with alternating ranks; one host for the first rank and one for all
    /// others.
    private var layouts: [HostMap] {
        let ranks = 0..<communicator.size
        let all = [
            HostMap(leaders: Array(ranks)), HostMap(leaders: ranks.map { $0 % 2 }),
            HostMap(leaders: ranks.map { min($0, 1) }),
        ]
        return communicator.size > 1 ? all : []
    }

    private struct Outcome: Equatable {
        var losses: [UInt64] = []
        var weights: [[UInt8]] = []
    }

    private func train(_ dtype: DType, on hosts: HostMap?) throws -> Outcome {
        let model = try UNet2DModel.forTraining(.selfTest)
        model.store.initialize(seed: 1)
        let objective = DenoisingObjective(
            unet: model, dataset: ImageDataset(syntheticFaces: 64, size: 16),
            schedule: try NoiseSchedule(SchedulerConfig()), minSNRGamma: nil, flips: false)
        let step = TrainingStep(
            TrainingStep.Settings(
                seed: 2, batchSize: 2 * communicator.size, microBatchSize: 1, clipNorm: 1),
            objective: objective,
            state: ModelState(model.store, ModelState.Settings(dtype: dtype), communicator, hosts: hosts),
            learningRate: LearningRate(
                peak: 1e-2, warmupSteps: 0, shape: .constant, final: 0, totalSteps: steps),
            communicator: communicator)
        var outcome = Outcome()
        for number in 0..<steps {
            // Delay the ranks in ascending and descending order, alternating between steps.
            let place = number % 2 == 0 ? communicator.size - 1 - communicator.rank : communicator.rank
            if hosts != nil { usleep(UInt32(20_000 * place)) }
            outcome.losses.append(try step(number).loss.bitPattern)
        }
        try step.completeWeights()
        outcome.weights = model.store.kernelMemory(dividedInto: []).map { Array($0.memory) }
        return outcome
    }
}
