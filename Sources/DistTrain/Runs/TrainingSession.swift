import Foundation
import LDMModel
import TensorCore

/// What a U-Net's run and an autoencoder's run have in common: optimizer, averages, the step, checkpoints, records.
final class TrainingSession {
    /// What is different between the two.
    struct Subject {
        /// Folder of the weights in a checkpoint: "unet" or "vae".
        var modelFolder: String
        var objective: any Objective
        var identity: RunIdentity
        /// Pictures of the model's work with the store's present values, on rank 0; nil elsewhere.
        var pictures: () throws -> Image?
        /// Writes what others open, from the store's present values; called on rank 0.
        var export: (_ folder: String) throws -> Void
    }

    let subject: Subject
    let settings: SessionSettings
    let communicator: any Communicator
    let run: RunFolder
    let optimizer: AdamW
    let averages: [WeightAverage]
    let step: DataParallelStep
    private let table: TensorTable
    private let checkpoints: CheckpointWriter
    private let metrics: MetricsWriter
    private var store: ParameterStore { subject.objective.store }

    init(
        _ subject: Subject, _ settings: SessionSettings, run: RunFolder, communicator: any Communicator
    ) throws {
        self.subject = subject
        self.settings = settings
        self.run = run
        self.communicator = communicator
        let (samples, ranks) = (subject.objective.sampleCount, communicator.size)
        guard settings.batchSize >= ranks else {
            throw RunError(
                "train.batch_size is \(settings.batchSize) and there are \(ranks) ranks: expected at least one sample a "
                    + "rank; start fewer ranks or raise train.batch_size")
        }
        guard samples >= ranks else {
            throw RunError(
                "the dataset has \(samples) samples and there are \(ranks) ranks: expected at least one sample a rank; "
                    + "start fewer ranks")
        }
        let store = subject.objective.store
        optimizer = AdamW(store, settings.optimizer)
        averages = settings.emaDecays.map {
            WeightAverage(store, decay: Float($0), warmup: settings.emaWarmup)
        }
        step = try DataParallelStep(
            DataParallelStep.Settings(
                seed: settings.seed, batchSize: settings.batchSize, microBatchSize: settings.microBatchSize,
                dtype: settings.dtype, clipNorm: settings.clipNorm.map { Float($0) }),
            objective: subject.objective, optimizer: optimizer, averages: averages,
            learningRate: settings.learningRate, communicator: communicator)
        table = TensorTable(store)
        checkpoints = try CheckpointWriter(
            folder: run.checkpoints, table: table, run: subject.identity, retention: settings.retention,
            communicator: communicator)
        metrics = MetricsWriter(run)
    }

    private var buffers: [StateBuffer] {
        [StateBuffer(subject.modelFolder, store.values)]
            + zip(settings.emaDecays, averages).map { StateBuffer("ema-\($0)", $1.values) }
            + [StateBuffer("exp_avg", optimizer.expAvg), StateBuffer("exp_avg_sq", optimizer.expAvgSq)]
    }

    /// Restores, trains to the last step, exports.
    func train(resume: Resume) throws {
        let first = try restore(resume)
        let progress = TrainingProgress(
            from: first, to: settings.cadence.steps, shown: communicator.isRoot)
        try communicator.collectively("opening metrics.jsonl") {
            if communicator.isRoot { try metrics.open(resumedAt: first, description) }
        }
        let trainer = Trainer(
            step: step, cadence: settings.cadence, communicator: communicator,
            actions: Trainer.Actions(
                log: { [self] entry in
                    guard communicator.isRoot else { return }
                    try metrics.append(entry, batchSize: settings.batchSize, samples: subject.objective.sampleCount)
                    progress.show(entry)
                },
                sample: { [self] in try savePictures(at: $0) },
                checkpoint: { [self] in try saveCheckpoint(at: $0) }))
        try trainer.train(from: first)
        progress.finish()
        try export()
    }

    private func restore(_ resume: Resume) throws -> Int {
        let found = try run.checkpoints.restore(
            resume, into: buffers, table, communicator: communicator,
            warn: { printLine("Warning: \($0)") })
        guard let checkpoint = found else { return 0 }
        store.valuesChanged()
        if communicator.isRoot {
            for difference in checkpoint.manifest.differences(from: subject.identity) {
                printLine("Note: \(difference)")
            }
            printLine("Resuming from \(checkpoint.path), step \(checkpoint.manifest.step)")
        }
        return checkpoint.manifest.step
    }

    private func saveCheckpoint(at step: Int) throws {
        try checkpoints.save(
            TrainingState(step: step, samplesSeen: step * settings.batchSize, buffers: buffers))
    }

    private func savePictures(at step: Int) throws {
        let grid = try withAverage { try subject.pictures() }
        try communicator.collectively("writing the samples of step \(step)") {
            guard let grid else { return }
            try grid.write(
                to: run.samplePath(step: step), text: [("run", subject.identity.name), ("step", String(step))])
            try metrics.plotLoss()
        }
    }

    private func export() throws {
        try withAverage {
            try communicator.collectively("writing \(run.modelPath)") {
                if communicator.isRoot { try subject.export(run.modelPath) }
            }
        }
    }

    /// With the slowest average in place of the weights, where there is one.
    private func withAverage<R>(_ body: () throws -> R) rethrows -> R {
        let slowest = averages.max { $0.decay < $1.decay }
        guard let slowest else { return try body() }
        return try store.withValues(slowest.values, body)
    }

    private var description: RunDescription {
        RunDescription(
            name: subject.identity.name, seed: settings.seed, ranks: communicator.size,
            threads: Processor.threads, precision: settings.dtype == .bfloat16 ? "bf16" : "fp32",
            parameters: store.parameterCount, batchSize: settings.batchSize,
            samples: subject.objective.sampleCount)
    }
}

/// The numbers that a session runs by, from either kind of configuration.
struct SessionSettings {
    var seed: UInt64
    var batchSize: Int
    var microBatchSize: Int?
    var dtype: DType
    var clipNorm: Double?
    var optimizer: AdamW.Settings
    var learningRate: LearningRate
    var emaDecays: [Double]
    var emaWarmup: Bool
    var cadence: Cadence
    var retention: Retention
}

/// A run that cannot start as it was asked to.
public struct RunError: ReportableError {
    public let message: String
    public let exitStatus: Int32
    public init(_ message: String, exitStatus: Int32 = ExitStatus.usage) {
        self.message = message
        self.exitStatus = exitStatus
    }
}
