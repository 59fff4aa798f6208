import Communication
import DistTrain
import Foundation
import LDMModel
import TensorCore

/// Complete training steps of a U-Net on random data: forward, loss, backward, reduction, clipping to norm 1,
/// AdamW.
package struct StepBenchmark {
    package var unet: UNet2DConfig
    package var dtype: DType
    package var backend: Backend
    /// Samples per rank.
    package var batch: Int
    /// Number of timed steps, 1 or more, after one warm-up step.
    package var steps: Int
    /// Decay of an average of the weights; nil: none, like the PyTorch benchmark.
    package var averageDecay: Double?
    package var sharding: Sharding
    /// The type of gradients in messages between ranks.
    package var reduceDType: DType
    /// Path for a Chrome trace of the timed steps.
    package var tracePath: String?

    package init(
        unet: UNet2DConfig, dtype: DType, backend: Backend, batch: Int, steps: Int,
        averageDecay: Double? = nil, sharding: Sharding = .optimizer, reduceDType: DType = .float32,
        tracePath: String? = nil
    ) {
        self.reduceDType = reduceDType
        self.unet = unet
        self.dtype = dtype
        self.backend = backend
        self.batch = batch
        self.steps = steps
        self.averageDecay = averageDecay
        self.sharding = sharding
        self.tracePath = tracePath
    }

    /// Runs the benchmark. Collective.
    package func run(_ communicator: any Communicator) throws -> BenchmarkReport {
        let model = try UNet2DModel(unet)
        model.store.initialize(seed: 0)
        let step = try makeStep(model, communicator)
        _ = try step(step: 0)
        _ = step.takeProfile()

        try communicator.barrier()
        let trace = tracePath.map { _ in ChromeTrace(rank: communicator.rank) }
        if let trace { step.observer = { trace.add($0) } }
        var results: [StepResult] = []
        for number in 1...steps {
            try communicator.barrier()
            results.append(try step(step: number))
        }
        try step.completeWeights()
        if let trace, let tracePath { try trace.write(to: tracePath, communicator) }

        var seconds = results.map(\.totalSeconds)
        try communicator.allReduceMax(&seconds)
        let profile = step.takeProfile()
        let peak = try communicator.allReduceMax(peakResidentMiB())
        return BenchmarkReport(
            call: "step", precision: dtype.precision, backend: backend.summary,
            ranks: communicator.size, threads: Processor.threads, batch: batch,
            parameters: model.store.parameterCount, seconds: seconds,
            flops: profile.flops(ofEach: steps, ranks: communicator.size), peakRSSMiB: peak,
            ceilings: try ArithmeticCeilings.measure(communicator),
            entries: entries(profile, results, communicator))
    }

    /// A step that trains `model` on random data.
    func makeStep(_ model: UNet2DModel, _ communicator: any Communicator) throws -> DataParallelStep {
        let ranks = communicator.size
        let dataset = NoiseDataset(count: 4 * batch * ranks, size: unet.timedSize, channels: unet.inChannels)
        let objective = DenoisingObjective(
            unet: model, dataset: dataset, schedule: try NoiseSchedule(SchedulerConfig()), minSNRGamma: nil,
            flips: false)
        return try DataParallelStep(
            DataParallelStep.Settings(
                seed: 0, batchSize: batch * ranks, microBatchSize: nil, backend: backend, clipNorm: 1,
                reduceDType: reduceDType),
            objective: objective,
            state: ModelState(
                model.store,
                ModelState.Settings(
                    sharding: sharding, dtype: dtype, optimizer: AdamW.Settings(weightDecay: 0.01),
                    averages: averageDecay.map { [.init(decay: $0, warmup: false)] } ?? []),
                communicator),
            learningRate: LearningRate(
                peak: 2e-4, warmupSteps: 0, shape: .constant, final: 0, totalSteps: steps + 1),
            communicator: communicator)
    }

    /// The time of rank 0 per step by kind of work, without kinds that took no time.
    private func entries(
        _ profile: [WorkProfile], _ results: [StepResult], _ communicator: any Communicator
    ) -> [BenchmarkReport.Entry] {
        func mean(_ key: KeyPath<StepResult, Double>) -> Double {
            results.reduce(0) { $0 + $1[keyPath: key] } / Double(steps)
        }
        var entries = profile.entries(ofEach: steps, ranks: communicator.size)
        // Time in MPI that overlaps computation: this rank's processor drives the transfer.
        let driving = mean(\.messageSeconds) - mean(\.communicationSeconds)
        let gather = mean(\.gatherSeconds)
        entries += [
            .init("optimizer", seconds: mean(\.optimizerSeconds)),
            .init("messages, driving", seconds: driving),
            .init("reduction, exposed", seconds: mean(\.communicationSeconds) - gather),
            .init("weights, exposed", seconds: gather),
            .init("data", seconds: mean(\.dataSeconds)),
        ]
        let known = entries.reduce(0) { $0 + $1.seconds }
        entries.append(.init("rest", seconds: mean(\.totalSeconds) - known))
        return entries.filter { $0.seconds >= 0.5e-4 }
    }
}
