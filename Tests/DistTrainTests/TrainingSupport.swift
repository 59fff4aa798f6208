import Communication
import DistTrain
import LDMModel
import TestSupport

/// A U-Net with a few thousand parameters, attention, dropout and two levels, in one process.
final class TinyTraining {
    let model: UNet2DModel
    let modelState: ModelState
    let step: TrainingStep

    init(
        batchSize: Int = 6, microBatchSize: Int? = nil, dataset: NormalDataset = NormalDataset(),
        learningRate: Float = 1e-3, clipNorm: Float? = 1, adamW: AdamW.Settings = AdamW.Settings()
    ) throws {
        var config = UNet2DConfig()
        config.sampleSize = SpatialSize(dataset.height)
        config.blockOutChannels = [8, 16]
        config.layersPerBlock = 1
        config.downBlockTypes = [.plain, .attention]
        config.upBlockTypes = [.attention, .plain]
        config.attentionHeadDim = 8
        config.normNumGroups = 4
        config.dropout = 0.1
        model = try UNet2DModel.forTraining(config)
        model.store.initialize(seed: 5)
        modelState = ModelState(
            model.store,
            ModelState.Settings(optimizer: adamW, averages: [.init(decay: 0.9, warmup: true)]),
            Communicator())
        step = TrainingStep(
            TrainingStep.Settings(
                seed: 11, batchSize: batchSize, microBatchSize: microBatchSize, clipNorm: clipNorm),
            objective: DenoisingObjective(
                unet: model, dataset: dataset, schedule: try NoiseSchedule(SchedulerConfig()),
                minSNRGamma: nil, flips: true),
            state: modelState,
            learningRate: LearningRate(
                peak: learningRate, warmupSteps: 0, shape: .constant, final: 0, totalSteps: 100),
            communicator: Communicator())
    }

    private func copy(_ buffer: UnsafeMutablePointer<Float>) -> [Float] {
        Array(UnsafeBufferPointer(start: buffer, count: model.store.count))
    }

    var weights: [Float] { copy(model.store.values) }
    var gradients: [Float] { copy(model.store.gradients) }
    /// The complete state that a step changes: weights, both moments, average.
    var state: [[Float]] {
        [
            weights, copy(modelState.optimizer.expAvg), copy(modelState.optimizer.expAvgSq),
            copy(modelState.averages[0].values),
        ]
    }
}
