import Checkpointing
import Communication
import Configuration
import Datasets
import Evaluation
import Foundation
import Imaging
import LDMModel
import Records
import Support
import TensorCore

/// `disttrain train`: a U-Net on latents or pixels.
package struct DenoisingRun {
    package let configuration: Configuration
    package let output: String
    package let resume: Resume
    package let allowedChanges: AllowedChanges
    package let watching: Watching

    package init(
        _ configuration: Configuration, output: String?, resume: Resume,
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
        activity.enter(.openStage)
        let firstStage = try communicator.collectively("opening the first stage") {
            try c.firstStagePath.map { try FirstStage(folder: ModelFolder($0), dtype: c.train.dtype) }
        }
        activity.enter(.openData)
        let dataset = try openTrainingDataset(c.data.options, firstStage: firstStage, on: communicator)
        try StartAgreement.compareData(dataset.fingerprint, firstStage: firstStage?.weightsHash, communicator)
        activity.enter(.makeModel)
        var model = c.model
        // diffusers' pipelines draw noise of this size, so the written configuration must contain it.
        model.sampleSize = model.sampleSize ?? SpatialSize(height: dataset.height, width: dataset.width)
        try checkChannels(model, dataset)
        let unet = try UNet2DModel(model)
        try communicator.collectively("making the model") { try unet.store.checkMemory() }
        unet.store.initialize(seed: c.seed)
        let scheduler = c.schedulerConfig()
        activity.enter(.initialize)
        let initializedFrom = try InitialWeights.unet(c.initFrom, for: model, scheduler)?
            .load(into: unet.store, run: RunFolder(output), resume, communicator)
        try agreeOnInitialWeights(unet.store, communicator)

        let task = try DenoisingTask(
            c, unet: unet, dataset: dataset, firstStage: firstStage, scheduler: scheduler,
            initializedFrom: initializedFrom, communicator: communicator)
        activity.enter(.openRun)
        let folder = try RunFolder.open(output, c.name, resume, communicator)
        defer { folder.lock?.release() }
        let run = try TrainingRun(
            task, c, folder: folder, allowedChanges: allowedChanges, watching: watching, watcher: watcher,
            communicator: communicator)
        if communicator.isRoot {
            printLine(
                "Training \(c.name): \(unet.store.parameterCount) parameters on \(dataset.count) samples "
                    + "\(dataset.height)×\(dataset.width)×\(dataset.channels) of \(dataset.name), "
                    + "\(communicator.size) ranks × \(Processor.threads) threads, "
                    + "\(c.train.precisionName), batch \(c.train.batchSize), in \(output)")
        }
        try run.train(resume: resume)
        if communicator.isRoot {
            printLine(
                "Done: samples in \(folder.path)/samples, loss curve \(folder.path)/loss.png, model \(folder.model)"
            )
        }
    }

    private func checkChannels(_ unet: UNet2DConfig, _ dataset: any TrainingDataset) throws {
        guard unet.inChannels == dataset.channels else {
            throw RunError(
                "model.in_channels is \(unet.inChannels), but the samples of \(dataset.name) have "
                    + "\(dataset.channels) channels; set model.in_channels and out_channels to \(dataset.channels)"
            )
        }
        guard unet.outChannels == unet.inChannels else {
            throw RunError(
                "model.out_channels is \(unet.outChannels), expected \(unet.inChannels), as model.in_channels"
            )
        }
        let factor = unet.downsamplingFactor
        guard dataset.height % factor == 0, dataset.width % factor == 0 else {
            throw RunError(
                "samples of \(dataset.name) are \(dataset.height)×\(dataset.width), but the model halves them "
                    + "\(unet.blockOutChannels.count - 1) times: expected multiples of \(factor); remove a block or "
                    + "prepare another size")
        }
    }
}

/// A U-Net that predicts noise, or what a configuration names in its place.
private final class DenoisingTask: TrainingTask {
    let objective: any Objective
    let identity: RunIdentity
    let initializedFrom: String?
    let evaluation: TrainingEvaluation?
    private let configuration: Configuration
    private let unet: UNet2DModel
    private let scheduler: SchedulerConfig
    private let pictures: SamplePictures

    init(
        _ c: Configuration, unet: UNet2DModel, dataset: any TrainingDataset, firstStage: FirstStage?,
        scheduler: SchedulerConfig, initializedFrom: String?, communicator: Communicator
    ) throws {
        (configuration, self.unet, self.scheduler) = (c, unet, scheduler)
        self.initializedFrom = initializedFrom
        objective = DenoisingObjective(
            unet: unet, dataset: dataset, schedule: try NoiseSchedule(scheduler),
            minSNRGamma: c.diffusion.minSNRGamma, flips: c.data.flip)
        pictures = SamplePictures(
            SampleGenerator(
                Denoiser(unet, dtype: c.train.dtype, shapes: 1), scheduler: scheduler,
                height: dataset.height, width: dataset.width),
            firstStage: firstStage, communicator: communicator)
        evaluation = try TrainingEvaluation(
            c, pictures, side: dataset.height * (firstStage?.downsamplingFactor ?? 1), firstStage: firstStage,
            communicator)
        identity = RunIdentity(
            name: c.name, seed: c.seed, configuration: c.resolvedYAML(), modelFolder: "unet",
            modelConfig: try unet.config.jsonText(), schedulerConfig: try scheduler.jsonText(),
            datasetFingerprint: dataset.fingerprint, earlierDatasetFingerprint: dataset.earlierFingerprint,
            firstStage: firstStage.map { $0.reference(path: c.firstStagePath ?? "") },
            programVersion: Program.version)
    }

    /// A grid of samples, of the same noise at every step.
    func sampleImages(tick: @escaping () -> Void) throws -> Image? {
        let count = configuration.sampling.count
        let share = try pictures.draw(count, configuration.samplingSettings) { _ in tick() }
        return try pictures.gather(share, count: count).map { ImageGrid.square(of: $0.count).render($0) }
    }

    func export(to folder: String, values: UnsafePointer<Float>) throws {
        try PipelineFolder.write(
            folder, unet: unet, values: values, scheduler: scheduler, firstStage: configuration.firstStagePath
        )
    }
}
