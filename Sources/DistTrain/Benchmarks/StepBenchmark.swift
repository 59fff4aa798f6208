import Foundation
import LDMModel
import TensorCore

/// Standard normal samples of any shape: what a benchmark trains on.
struct NoiseDataset: TrainingDataset {
    let name = "noise"
    let count: Int
    let height: Int
    let width: Int
    let channels: Int
    var fingerprint: String { "noise-\(count)-\(height)x\(width)x\(channels)" }

    func read(
        _ index: Int, flipped: Bool, key: SampleKey, into out: UnsafeMutableBufferPointer<Float>
    ) throws {
        var random = CounterRandom(seed: 0, purpose: .test, sample: UInt64(index))
        random.fillNormal(out)
    }
}

/// Full training steps of a U-Net on random data: forward, loss, backward, reduction, clip to norm 1, AdamW.
public struct StepBenchmark {
    public var unet: UNet2DConfig
    public var dtype: DType
    public var backend: Backend
    /// Samples a rank.
    public var batch: Int
    public var steps: Int

    public init(unet: UNet2DConfig, dtype: DType, backend: Backend, batch: Int, steps: Int) {
        self.unet = unet
        self.dtype = dtype
        self.backend = backend
        self.batch = batch
        self.steps = steps
    }

    /// What was measured. `images_per_second` follows from the median step after one warm-up step.
    public struct Result: Sendable {
        public let ranks: Int
        public let threadsPerRank: Int
        public let batchPerRank: Int
        public let precision: String
        public let backend: String
        public let secondsPerStep: Double
        public let imagesPerSecond: Double
        public let peakRSSMiB: Int
        public let parameters: Int
        /// Rank 0's seconds a step, by kind of work.
        public let breakdown: [(name: String, seconds: Double)]
    }

    public func run(_ communicator: any Communicator) throws -> Result {
        let model = try UNet2DModel(unet)
        model.store.initialize(seed: 0)
        let size = unet.sampleSize ?? SpatialSize(height: 32, width: 32)
        let ranks = communicator.size
        let dataset = NoiseDataset(
            count: 4 * batch * ranks, height: size.height, width: size.width, channels: unet.inChannels)
        let objective = DenoisingObjective(
            unet: model, dataset: dataset, schedule: try NoiseSchedule(SchedulerConfig()), minSNRGamma: nil,
            flips: false)
        let step = try DataParallelStep(
            DataParallelStep.Settings(
                seed: 0, batchSize: batch * ranks, microBatchSize: nil, dtype: dtype, backend: backend,
                clipNorm: 1),
            objective: objective, optimizer: AdamW(model.store, AdamW.Settings(weightDecay: 0.01)),
            averages: [],
            learningRate: LearningRate(
                peak: 2e-4, warmupSteps: 0, shape: .constant, final: 0, totalSteps: steps + 1),
            communicator: communicator)

        _ = try step(step: 0)
        _ = step.takeProfile()
        var results: [StepResult] = []
        for number in 1...steps {
            try communicator.barrier()
            results.append(try step(step: number))
        }
        let seconds = results.map(\.totalSeconds).sorted()[steps / 2]
        let slowest = try communicator.allReduceMax(seconds)
        var breakdown = step.takeProfile().map { ($0.work.rawValue, $0.seconds / Double(steps)) }
        func mean(_ key: KeyPath<StepResult, Double>) -> Double {
            results.reduce(0) { $0 + $1[keyPath: key] } / Double(steps)
        }
        let kernels = breakdown.reduce(0) { $0 + $1.1 }
        breakdown.append(("data", mean(\.dataSeconds)))
        breakdown.append(("communication wait", mean(\.communicationSeconds)))
        breakdown.append(("optimizer and rest", mean(\.computeSeconds) - kernels))
        return Result(
            ranks: ranks, threadsPerRank: Processor.threads, batchPerRank: batch,
            precision: dtype == .bfloat16 ? "bf16" : "fp32", backend: backend.summary,
            secondsPerStep: slowest, imagesPerSecond: Double(batch * ranks) / slowest,
            peakRSSMiB: peakResidentMiB(), parameters: model.store.parameterCount, breakdown: breakdown)
    }
}

/// Peak resident memory of this process, in MiB.
public func peakResidentMiB() -> Int {
    var usage = rusage()
    getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
    return usage.ru_maxrss / 1024
}
