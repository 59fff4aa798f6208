import Checkpointing
import Communication
import Configuration
import Datasets
import Foundation
import Imaging
import LDMModel
import Records
import Support
import TensorCore

/// `disttrain vae train`: an AutoencoderKL on images.
package struct AutoencoderRun {
    package let configuration: AutoencoderConfiguration
    package let output: String
    package let resume: Resume
    package let allowedChanges: AllowedChanges
    package let watching: Watching

    package init(
        _ configuration: AutoencoderConfiguration, output: String?, resume: Resume,
        allowedChanges: AllowedChanges = AllowedChanges.none, watching: Watching = Watching()
    ) {
        self.watching = watching
        self.configuration = configuration
        self.output = output ?? "runs/\(configuration.name)"
        self.resume = resume
        self.allowedChanges = allowedChanges
    }

    /// Trains, and watches the ranks meanwhile. Collective.
    package func train(_ communicator: Communicator) throws {
        try JobWatcher.watch(communicator, watching.limits) { try train(communicator, $0) }
    }

    /// Trains on ranks that are watched already. Collective.
    package func train(_ communicator: Communicator, _ watcher: JobWatcher) throws {
        var c = configuration
        let activity = watcher.activity
        try StartAgreement.compareCommands(
            c.node, output: output, resume: resume, allowedChanges: allowedChanges, communicator)
        try c.train.agreeOnPrecision(communicator)
        activity.enter(.openData)
        let dataset = try openTrainingDataset(c.data.options, firstStage: nil, on: communicator)
        try StartAgreement.compareData(dataset.fingerprint, firstStage: nil, communicator)
        activity.enter(.makeModel)
        let model = try AutoencoderKL(c.model)
        guard c.model.inChannels == dataset.channels else {
            throw RunError(
                "model.in_channels is \(c.model.inChannels), but \(dataset.name) has \(dataset.channels) channels"
            )
        }
        try communicator.collectively("making the model") { try model.store.checkMemory() }
        model.store.initialize(seed: c.seed)
        activity.enter(.initialize)
        let initializedFrom = try InitialWeights.autoencoder(c.initFrom, for: c.model)?
            .load(into: model.store, run: RunFolder(output), resume, communicator)
        try agreeOnInitialWeights(model.store, communicator)
        let task = try AutoencoderTask(
            c, model: model, dataset: dataset, initializedFrom: initializedFrom,
            communicator: communicator)
        activity.enter(.openRun)
        let folder = try RunFolder.open(output, c.name, resume, communicator)
        defer { folder.lock?.release() }
        let run = try TrainingRun(
            task, c, folder: folder, allowedChanges: allowedChanges, watching: watching, watcher: watcher,
            communicator: communicator)
        if communicator.isRoot {
            printLine(
                "Training first stage \(c.name): \(model.store.parameterCount) parameters on \(dataset.count) images "
                    + "\(dataset.height)×\(dataset.width) of \(dataset.name), \(communicator.size) ranks × "
                    + "\(Processor.threads) threads, \(c.train.precisionName), "
                    + "batch \(c.train.batchSize), in \(output)")
        }
        try run.train(resume: resume)
        if communicator.isRoot {
            printLine("Done: reconstructions in \(folder.path)/samples, first stage \(folder.model)")
        }
    }
}

/// An autoencoder that reconstructs images.
private final class AutoencoderTask: TrainingTask {
    let objective: any Objective
    let identity: RunIdentity
    let initializedFrom: String?
    let evaluation: TrainingEvaluation? = nil
    private let configuration: AutoencoderConfiguration
    private let model: AutoencoderKL
    private let dataset: any TrainingDataset
    private let stage: FirstStage
    private let communicator: Communicator

    init(
        _ c: AutoencoderConfiguration, model: AutoencoderKL, dataset: any TrainingDataset,
        initializedFrom: String?, communicator: Communicator
    ) throws {
        (configuration, self.model, self.dataset) = (c, model, dataset)
        (self.initializedFrom, self.communicator) = (initializedFrom, communicator)
        objective = AutoencoderObjective(
            model: model, dataset: dataset,
            weights: AutoencoderObjective.Weights(
                l1: Float(c.loss.l1), mse: Float(c.loss.mse), kl: Float(c.loss.kl), edge: Float(c.loss.edge)),
            flips: c.data.flip)
        stage = FirstStage(.autoencoderKL(model), dtype: c.train.dtype)
        identity = RunIdentity(
            name: c.name, seed: c.seed, configuration: c.resolvedYAML(), modelFolder: "vae",
            modelConfig: try c.model.jsonText(), datasetFingerprint: dataset.fingerprint,
            earlierDatasetFingerprint: dataset.earlierFingerprint, programVersion: Program.version)
    }

    func sampleImages(tick: @escaping () -> Void) throws -> Image? {
        communicator.isRoot ? try reconstructions() : nil
    }

    func export(to folder: String, values: UnsafePointer<Float>) throws {
        var config = configuration.model
        config.scalingFactor = try measuredScalingFactor()
        try ModelFolder(folder).save(config, model.store, values: values)
    }

    /// The first images of the dataset, each with its reconstruction on the right.
    private func reconstructions() throws -> Image {
        let count = min(32, dataset.count)
        let pixels = try images(0..<count)
        let encoded = try pixels.withUnsafeBufferPointer {
            try stage.encode($0, batch: count, height: dataset.height, width: dataset.width)
        }
        let decoded = encoded.mean.withUnsafeBufferPointer {
            stage.decode($0, batch: count, height: encoded.shape[1], width: encoded.shape[2])
        }
        let size = dataset.sampleSize
        let images = (0..<count).flatMap { index in
            [pixels, decoded].map { values in
                Image(
                    width: dataset.width, height: dataset.height,
                    floats: Array(values[index * size..<(index + 1) * size]))
            }
        }
        return ImageGrid(columns: 8).render(images)
    }

    /// 1 over the standard deviation of the latents of up to 512 images, as Rombach et al. (2022, section G) scale
    /// theirs, so that the diffusion works on unit variance.
    private func measuredScalingFactor() throws -> Double {
        let count = min(512, dataset.count)
        var statistics = (count: 0.0, sum: 0.0, squares: 0.0)
        for start in stride(from: 0, to: count, by: 32) {
            let range = start..<min(start + 32, count)
            let encoded = try images(range).withUnsafeBufferPointer {
                try stage.encode($0, batch: range.count, height: dataset.height, width: dataset.width)
            }
            for (index, mean) in encoded.mean.enumerated() {
                // A sample of the posterior has its mean's spread and its own variance.
                let variance = encoded.logVariance.map { exp(Double($0[index])) } ?? 0
                statistics.count += 1
                statistics.sum += Double(mean)
                statistics.squares += Double(mean) * Double(mean) + variance
            }
        }
        let mean = statistics.sum / statistics.count
        return 1 / (statistics.squares / statistics.count - mean * mean).squareRoot()
    }

    /// Images `range`, [B, H, W, 3] in [-1, 1].
    private func images(_ range: Range<Int>) throws -> [Float] {
        try range.flatMap { try dataset.sample($0, key: SampleKey(seed: 0, step: 0, sample: 0)) }
    }
}
