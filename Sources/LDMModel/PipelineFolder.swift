import Foundation
import TensorCore

/// The components for sampling, located in a diffusers pipeline, a run, one of its checkpoints, or a bare
/// `UNet2DModel`.
package struct PipelineFolder: Sendable {
    package static let indexFile = PipelineIndex.fileName

    /// The requested path.
    package let path: String
    /// The U-Net's weights and configuration; for a checkpoint, its slowest average.
    package let unet: ModelFolder
    package let unetConfig: UNet2DConfig
    /// nil if the folder does not specify it, as for a bare U-Net.
    package let scheduler: SchedulerConfig?
    /// The autoencoder; nil in pixel space.
    package let firstStage: ModelFolder?
    /// Scaling of latents that the U-Net was trained with, if the folder records it separately from the
    /// autoencoder's own configuration.
    package let firstStageReference: FirstStageReference?
    /// Number of updates; only for a checkpoint.
    package let step: Int?
    /// Replaces the weights in `unet`, unless nil.
    private(set) var mixture: WeightMixture?

    /// The same pipeline with other weights for its U-Net.
    package func with(_ mixture: WeightMixture) -> PipelineFolder {
        var pipeline = self
        pipeline.mixture = mixture
        return pipeline
    }

    /// "unet", "ema-0.9999", or the name of a mixture.
    package var weightsName: String { mixture?.name ?? (unet.path as NSString).lastPathComponent }

    /// The U-Net with its weights.
    ///
    /// - Throws: `ModelFolderError`, `ConfigError` or `SafetensorsError`.
    package func loadUNet() throws -> UNet2DModel {
        guard let mixture else { return try unet.loadUNet() }
        let model = try UNet2DModel(unetConfig)
        try WeightSource(mixture, fitting: model.store).load(into: model.store)
        return model
    }

    /// Opens a folder of any supported kind. For a run, this is its newest checkpoint, or its finished model
    /// if it has none.
    ///
    /// - Parameters:
    ///   - weights: a folder in the checkpoint to use instead of the average, for example "unet".
    ///   - firstStage: the autoencoder's folder, instead of the recorded one.
    /// - Throws: `ModelFolderError` or `ConfigError`.
    package static func read(
        _ path: String, weights: String? = nil, firstStage: String? = nil
    ) throws -> PipelineFolder {
        switch try PipelinePlace(path) {
        case .pipeline(let folder):
            return try readPipeline(folder, asked: path, weights: weights, firstStage: firstStage)
        case .checkpoint(let folder):
            return try readCheckpoint(folder, asked: path, weights: weights, firstStage: firstStage)
        case .model(let folder):
            return try readModel(folder, asked: path, weights: weights, firstStage: firstStage)
        }
    }

    /// Only the U-Net's folder, located as in `read`; the other components of the pipeline may be missing.
    package static func locateUNet(_ path: String) throws -> ModelFolder {
        switch try PipelinePlace(path) {
        case .model(let folder): return ModelFolder(folder)
        case .pipeline(let folder): return try PipelineIndex(folder).unet()
        case .checkpoint(let folder): return try CheckpointNote(folder).weights(nil)
        }
    }

    /// The folder of an autoencoder: `path` itself, or the autoencoder of a pipeline, of a checkpoint or run
    /// of `vae train`, or of a diffusion run.
    package static func locateAutoencoder(_ path: String) throws -> ModelFolder {
        switch try PipelinePlace(path) {
        case .model(let folder): return ModelFolder(folder)
        case .pipeline(let folder):
            if let found = try PipelineIndex(folder).autoencoder { return found }
            throw ModelFolderError(folder, "is a pipeline in pixel space, expected one with an autoencoder")
        case .checkpoint(let folder):
            if let trained = try trainedAutoencoder(path) { return trained }
            if let found = try CheckpointNote(folder).firstStageFolder(nil) { return found }
            throw ModelFolderError(folder, "is of a run in pixel space, expected one behind an autoencoder")
        }
    }

    /// The trained autoencoder's weights if `path` is a run or a checkpoint of `vae train`; otherwise nil.
    ///
    /// - Parameter weights: a folder in the checkpoint to use instead of the slowest average.
    package static func trainedAutoencoder(_ path: String, weights: String? = nil) throws -> ModelFolder? {
        guard case .checkpoint(let folder) = try PipelinePlace(path) else { return nil }
        let note = try CheckpointNote(folder)
        return note.modelFolder == "unet" ? nil : try note.weights(weights)
    }

    /// The first stage for decoding, with the scaling that the U-Net was trained with; nil in pixel space.
    package func loadFirstStage(dtype: DType) throws -> FirstStage? {
        guard let firstStage else { return nil }
        let stage = try FirstStage(folder: firstStage, dtype: dtype)
        if let trained = firstStageReference {
            stage.scalingFactor = Float(trained.scalingFactor)
            stage.shiftFactor = Float(trained.shiftFactor)
        }
        return stage
    }

    private static func readPipeline(
        _ folder: String, asked: String, weights: String?, firstStage: String?
    ) throws -> PipelineFolder {
        try checkNoChoice(weights, folder, "is a pipeline")
        let index = try PipelineIndex(folder)
        let unet = try index.unet()
        return PipelineFolder(
            path: asked, unet: unet, unetConfig: try unetConfig(of: unet), scheduler: try index.scheduler(),
            firstStage: try firstStage.map(locateAutoencoder) ?? index.autoencoder,
            firstStageReference: nil, step: nil)
    }

    private static func readCheckpoint(
        _ folder: String, asked: String, weights: String?, firstStage: String?
    ) throws -> PipelineFolder {
        let note = try CheckpointNote(folder)
        let unet = try note.weights(weights)
        return PipelineFolder(
            path: asked, unet: unet, unetConfig: try unetConfig(of: unet), scheduler: try note.scheduler(),
            firstStage: try note.firstStageFolder(firstStage), firstStageReference: note.firstStage,
            step: note.step)
    }

    /// Opens a model's folder. If it belongs to a pipeline or a checkpoint, that provides the other
    /// components.
    private static func readModel(
        _ folder: String, asked: String, weights: String?, firstStage: String?
    ) throws -> PipelineFolder {
        let parent = (absolute(folder) as NSString).deletingLastPathComponent
        let name = (absolute(folder) as NSString).lastPathComponent
        if exists(join(parent, indexFile)), name == "unet" {
            return try readPipeline(parent, asked: asked, weights: weights, firstStage: firstStage)
        }
        if let note = try CheckpointNote.around(parent), note.folders.contains(name) {
            return try readCheckpoint(parent, asked: asked, weights: weights ?? name, firstStage: firstStage)
        }
        try checkNoChoice(weights, folder, "is one model")
        let unet = ModelFolder(folder)
        return PipelineFolder(
            path: asked, unet: unet, unetConfig: try unetConfig(of: unet), scheduler: nil,
            firstStage: try firstStage.map(locateAutoencoder), firstStageReference: nil, step: nil)
    }

    /// Throws if weights are selected outside a checkpoint; only a checkpoint has several.
    private static func checkNoChoice(
        _ weights: String?, _ folder: String, _ what: String
    ) throws(ModelFolderError) {
        if let weights, weights != "unet" {
            throw ModelFolderError(
                folder, "\(what), which has only 'unet', expected a checkpoint for '\(weights)'")
        }
    }

    private static func unetConfig(of folder: ModelFolder) throws -> UNet2DConfig {
        guard case .unet(let config) = try folder.readModelConfig() else {
            throw ModelFolderError(folder.path, "holds an autoencoder, expected a UNet2DModel")
        }
        return config
    }

    static func join(_ folder: String, _ name: String) -> String {
        (folder as NSString).appendingPathComponent(name)
    }

    static func exists(_ path: String) -> Bool { FileManager.default.fileExists(atPath: path) }

    static func absolute(_ path: String) -> String { URL(fileURLWithPath: path).standardizedFileURL.path }
}
