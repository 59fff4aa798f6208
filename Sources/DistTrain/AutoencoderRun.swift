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
    package func train(_ communicator: any Communicator) throws {
        try JobWatcher.watch(communicator, watching.limits) { try train(communicator, $0) }
    }

    /// Trains on ranks that are watched already. Collective.
    package func train(_ communicator: any Communicator, _ watcher: JobWatcher) throws {
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
        let objective = AutoencoderObjective(
            model: model, dataset: dataset,
            weights: AutoencoderObjective.Weights(
                l1: Float(c.loss.l1), mse: Float(c.loss.mse), kl: Float(c.loss.kl), edge: Float(c.loss.edge)),
            flips: c.data.flip)
        let stage = FirstStage(.autoencoderKL(model), dtype: c.train.dtype)
        activity.enter(.openRun)
        let yaml = c.resolvedYAML()
        let run = try RunFolder.open(output, c.name, resume, communicator)
        defer { run.lock?.release() }
        let session = try TrainingSession(
            TrainingSession.Subject(
                modelFolder: "vae", objective: objective,
                identity: RunIdentity(
                    name: c.name, seed: c.seed, configuration: yaml, modelFolder: "vae",
                    modelConfig: try c.model.jsonText(), datasetFingerprint: dataset.fingerprint,
                    earlierDatasetFingerprint: dataset.earlierFingerprint,
                    programVersion: Program.version),
                initializedFrom: initializedFrom, allowedChanges: allowedChanges,
                pictures: { _ in
                    communicator.isRoot ? try Self.reconstructions(dataset, stage) : nil
                },
                export: { folder, values in
                    var config = c.model
                    config.scalingFactor = try Self.measuredScalingFactor(dataset, stage)
                    try ModelFolder(folder).save(config, model.store, values: values)
                }),
            c.session, run: run, watching: watching, watcher: watcher, communicator: communicator)
        if communicator.isRoot {
            printLine(
                "Training first stage \(c.name): \(model.store.parameterCount) parameters on \(dataset.count) images "
                    + "\(dataset.height)×\(dataset.width) of \(dataset.name), \(communicator.size) ranks × "
                    + "\(Processor.threads) threads, \(c.session.precision), "
                    + "batch \(c.train.batchSize), in \(output)")
        }
        try session.train(resume: resume)
        if communicator.isRoot {
            printLine("Done: reconstructions in \(run.path)/samples, first stage \(run.model)")
        }
    }

    /// The first images of the dataset, each with its reconstruction on the right.
    private static func reconstructions(_ dataset: any TrainingDataset, _ stage: FirstStage) throws -> Image {
        let count = min(32, dataset.count)
        let pixels = try Self.images(dataset, 0..<count)
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
    private static func measuredScalingFactor(
        _ dataset: any TrainingDataset, _ stage: FirstStage
    ) throws -> Double {
        let count = min(512, dataset.count)
        var statistics = (count: 0.0, sum: 0.0, squares: 0.0)
        for start in stride(from: 0, to: count, by: 32) {
            let range = start..<min(start + 32, count)
            let encoded = try images(dataset, range).withUnsafeBufferPointer {
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
    private static func images(_ dataset: any TrainingDataset, _ range: Range<Int>) throws -> [Float] {
        try range.flatMap { try dataset.sample($0, key: SampleKey(seed: 0, step: 0, sample: 0)) }
    }
}
