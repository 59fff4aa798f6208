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

extension AutoencoderConfiguration: TrainableConfiguration {
    package static func locateModel(_ path: String) throws -> ModelFolder {
        try PipelineFolder.locateAutoencoder(path)
    }

    package func makeTask(_ setup: TaskSetup) throws -> any TrainingTask {
        let dataset = try setup.openData(data.options, firstStage: nil)
        guard model.inChannels == dataset.channels else {
            throw RunError(
                channelMismatch(dataset, inChannels: model.inChannels, canConvert: true, what: "images"))
        }
        let autoencoder = try AutoencoderKL(model)
        let initializedFrom = try setup.initialize(
            autoencoder.store, seed: seed, from: InitialWeights.autoencoder(initFrom, for: model))
        return try AutoencoderTask(
            self, model: autoencoder, dataset: dataset, initializedFrom: initializedFrom,
            communicator: setup.communicator)
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

    var summary: String {
        "first stage \(configuration.name): \(model.store.parameterCount) parameters on \(dataset.count) images "
            + "\(dataset.height)×\(dataset.width) of \(dataset.name)"
    }

    func results(in folder: RunFolder) -> String {
        "reconstructions in \(folder.path)/samples, first stage \(folder.model)"
    }

    func sampleImages(_ activity: RankActivity) throws -> Image? {
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

    /// 1 over the standard deviation of the latents of up to 512 images, so that diffusion works on latents of
    /// unit variance (Rombach et al., 2022, section G).
    private func measuredScalingFactor() throws -> Double {
        let count = min(512, dataset.count)
        var statistics = (count: 0.0, sum: 0.0, squares: 0.0)
        for start in stride(from: 0, to: count, by: 32) {
            let range = start..<min(start + 32, count)
            let encoded = try images(range).withUnsafeBufferPointer {
                try stage.encode($0, batch: range.count, height: dataset.height, width: dataset.width)
            }
            for (index, mean) in encoded.mean.enumerated() {
                // The second moment of a sample from the posterior is mean² + variance.
                let variance = encoded.logVariance.map { exp(Double($0[index])) } ?? 0
                statistics.count += 1
                statistics.sum += Double(mean)
                statistics.squares += Double(mean) * Double(mean) + variance
            }
        }
        let mean = statistics.sum / statistics.count
        return 1 / (statistics.squares / statistics.count - mean * mean).squareRoot()
    }

    /// Images `range`, [B, H, W, C] in [-1, 1].
    private func images(_ range: Range<Int>) throws -> [Float] {
        try range.flatMap { try dataset.sample($0, key: SampleKey(seed: 0, step: 0, sample: 0)) }
    }
}
