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

extension Configuration: TrainableConfiguration {
    package static func locateModel(_ path: String) throws -> ModelFolder {
        try PipelineFolder.locateUNet(path)
    }

    package func makeTask(_ setup: TaskSetup) throws -> any TrainingTask {
        setup.activity.enter(.openStage)
        let firstStage = try setup.communicator.collectively("opening the first stage") {
            try firstStagePath.map { try FirstStage(folder: ModelFolder($0), dtype: train.dtype) }
        }
        var dataOptions = data.options
        dataOptions.needsLabels = model.isConditional
        let dataset = try setup.openData(dataOptions, firstStage: firstStage)
        var model = model
        // diffusers' pipelines draw noise of this size, so the written configuration must contain it.
        model.sampleSize = model.sampleSize ?? SpatialSize(height: dataset.height, width: dataset.width)
        try checkChannels(model, dataset)
        if model.isConditional {
            try checkClasses(model, dataset)
            model.labelNames = dataset.classNames
        }
        let unet = try UNet2DModel.forTraining(model)
        let scheduler = schedulerConfig()
        let initializedFrom = try setup.initialize(
            unet.store, seed: seed, from: InitialWeights.unet(initFrom, for: model, scheduler))
        return try DenoisingTask(
            self, unet: unet, dataset: dataset, firstStage: firstStage, scheduler: scheduler,
            initializedFrom: initializedFrom, communicator: setup.communicator)
    }

    private func checkChannels(_ unet: UNet2DConfig, _ dataset: any TrainingDataset) throws {
        guard unet.inChannels == dataset.channels else {
            throw RunError(
                channelMismatch(
                    dataset, inChannels: unet.inChannels, canConvert: firstStage == nil, what: "samples"))
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

extension Configuration {
    /// Checks that the model has an embedding for each class of the data, and one for the null class if labels
    /// are dropped.
    private func checkClasses(_ unet: UNet2DConfig, _ dataset: any TrainingDataset) throws {
        let classes = dataset.classNames.count
        guard classes > 0 else {
            throw RunError(
                "the model is class-conditional, but the samples of \(dataset.name) have no labels; prepare images in a "
                    + "folder per class, or with `disttrain prepare --labels FILE.csv`, or remove model.num_class_embeds"
            )
        }
        guard let embeddings = unet.numClassEmbeds else { return }
        let expected = diffusion.labelDropout > 0 ? [classes + 1] : [classes, classes + 1]
        guard expected.contains(embeddings) else {
            throw RunError(
                "model.num_class_embeds is \(embeddings), but \(dataset.name) has \(classes) classes; expected "
                    + "\(classes + 1) with diffusion.label_dropout (one for the null class), else \(classes)")
        }
    }

    /// The dropout of labels during training; nil for none.
    fileprivate func labelDropout(_ unet: UNet2DConfig) -> LabelDropout? {
        guard diffusion.labelDropout > 0, let nullClass = unet.nullClass else { return nil }
        return LabelDropout(probability: diffusion.labelDropout, nullClass: nullClass)
    }
}

/// A U-Net that predicts noise, or the prediction type that the configuration selects.
private final class DenoisingTask: TrainingTask {
    let objective: any Objective
    let identity: RunIdentity
    let initializedFrom: String?
    let evaluation: TrainingEvaluation?
    private let configuration: Configuration
    private let unet: UNet2DModel
    private let scheduler: SchedulerConfig
    private let pictures: SamplePictures
    let summary: String

    init(
        _ c: Configuration, unet: UNet2DModel, dataset: any TrainingDataset, firstStage: FirstStage?,
        scheduler: SchedulerConfig, initializedFrom: String?, communicator: Communicator
    ) throws {
        (configuration, self.unet, self.scheduler) = (c, unet, scheduler)
        self.initializedFrom = initializedFrom
        summary =
            "\(c.name): \(unet.store.parameterCount) parameters on \(dataset.count) samples "
            + "\(dataset.height)×\(dataset.width)×\(dataset.channels) of \(dataset.name)"
        objective = DenoisingObjective(
            unet: unet, dataset: dataset, schedule: try NoiseSchedule(scheduler),
            minSNRGamma: c.diffusion.minSNRGamma, flips: c.data.flip,
            labelDropout: c.labelDropout(unet.config))
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

    func results(in folder: RunFolder) -> String {
        "samples in \(folder.path)/samples, loss curve \(folder.path)/loss.png, model \(folder.model)"
    }

    /// A grid of samples, generated from the same noise at every step.
    func sampleImages(_ activity: RankActivity) throws -> Image? {
        let count = configuration.sampling.count
        let share = try pictures.draw(count, configuration.samplingSettings) { _ in activity.tick() }
        let classes = try unet.config.select(configuration.samplingSettings.classes)
        return try pictures.gather(share, count: count).map { ImageGrid.render(samples: $0, classes) }
    }

    func export(to folder: String, values: UnsafePointer<Float>) throws {
        try PipelineFolder.write(
            folder, unet: unet, values: values, scheduler: scheduler,
            firstStage: try configuration.firstStagePath.map(PipelineFolder.locateAutoencoder))
    }
}
