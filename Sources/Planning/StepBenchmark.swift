import Communication
import Datasets
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
        (self.reduceDType, self.unet, self.dtype) = (reduceDType, unet, dtype)
        (self.backend, self.batch, self.steps) = (backend, batch, steps)
        (self.averageDecay, self.sharding, self.tracePath) = (averageDecay, sharding, tracePath)
    }

    /// Runs the benchmark. Collective.
    package func run(_ communicator: Communicator) throws -> BenchmarkReport {
        let model = try UNet2DModel.forTraining(unet)
        model.store.initialize(seed: 0)
        let step = try makeStep(model, communicator)
        _ = try step(0)
        _ = step.takeProfile()

        try communicator.barrier()
        let trace = tracePath.map { _ in ChromeTrace(rank: communicator.rank) }
        if let trace { step.observer = { trace.add($0) } }
        var results: [StepResult] = []
        for number in 1...steps {
            try communicator.barrier()
            results.append(try step(number))
        }
        try step.completeWeights()
        if let trace, let tracePath { try trace.write(to: tracePath, communicator) }

        var seconds = results.map(\.times.total)
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
    func makeStep(_ model: UNet2DModel, _ communicator: Communicator) throws -> TrainingStep {
        let ranks = communicator.size
        let dataset = NoiseDataset(count: 4 * batch * ranks, size: unet.timedSize, channels: unet.inChannels)
        let objective = DenoisingObjective(
            unet: model, dataset: dataset, schedule: try NoiseSchedule(SchedulerConfig()), minSNRGamma: nil,
            flips: false)
        return TrainingStep(
            TrainingStep.Settings(
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
        _ profile: [WorkProfile], _ results: [StepResult], _ communicator: Communicator
    ) -> [BenchmarkReport.Entry] {
        func mean(_ key: KeyPath<StepResult, Double>) -> Double {
            results.reduce(0) { $0 + $1[keyPath: key] } / Double(steps)
        }
        var entries = profile.entries(ofEach: steps, ranks: communicator.size)
        // Time inside MPI while computing: this rank's processor drives the transfer.
        let driving = mean(\.times.messages) - mean(\.times.communication)
        let gather = mean(\.times.gather)
        entries += [
            .init("optimizer", seconds: mean(\.times.optimizer)),
            .init("messages, driving", seconds: driving),
            .init("reduction, exposed", seconds: mean(\.times.communication) - gather),
            .init("weights, exposed", seconds: gather),
            .init("data", seconds: mean(\.times.data)),
        ]
        let known = entries.reduce(0) { $0 + $1.seconds }
        entries.append(.init("rest", seconds: mean(\.times.total) - known))
        return entries.filter { $0.seconds >= 0.5e-4 }
    }
}

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
