import Foundation

/// Everything that sampling needs, found in any folder that holds it: a diffusers pipeline, a run, one of its
/// checkpoints, or a bare `UNet2DModel`.
public struct PipelineFolder: Sendable {
    public static let indexFile = "model_index.json"

    /// What was asked for.
    public let path: String
    /// The U-Net's weights and configuration; of a checkpoint its slowest average.
    public let unet: ModelFolder
    public let unetConfig: UNet2DConfig
    /// nil where the folder says nothing of it, as a bare U-Net's.
    public let scheduler: SchedulerConfig?
    /// The autoencoder; nil in pixel space.
    public let firstStage: ModelFolder?
    /// Scaling of latents that the U-Net was trained with, where the folder tells it apart from the autoencoder's
    /// own configuration.
    public let firstStageReference: FirstStageReference?
    /// Updates made, of a checkpoint.
    public let step: Int?

    /// Opens whatever `path` is. A run gives its newest checkpoint, or its finished model where it has none.
    ///
    /// - Parameters:
    ///   - weights: folder of a checkpoint in place of the average, for example "unet".
    ///   - firstStage: the autoencoder's folder in place of the one that is noted.
    /// - Throws: `ModelFolderError` or `ConfigError`.
    public static func read(
        _ path: String, weights: String? = nil, firstStage: String? = nil
    ) throws -> PipelineFolder {
        switch try PipelinePlace(path) {
        case .pipeline(let folder):
            return try readPipeline(folder, asked: path, weights: weights, firstStage: firstStage)
        case .checkpoint(let folder):
            return try readCheckpoint(folder, asked: path, weights: weights, firstStage: firstStage)
        case .model(let folder):
            return try readModel(folder, asked: path, firstStage: firstStage)
        }
    }

    /// The folder of an autoencoder: `path` itself, or the one in a pipeline, a checkpoint or a run of
    /// `vae train`.
    public static func locateAutoencoder(_ path: String) throws -> ModelFolder {
        switch try PipelinePlace(path) {
        case .model(let folder): return ModelFolder(folder)
        case .pipeline(let folder):
            if let found = try autoencoder(in: folder) { return found }
            throw ModelFolderError(folder, "is a pipeline in pixel space, expected one with an autoencoder")
        case .checkpoint(let folder):
            return ModelFolder(join(folder, try CheckpointNote(folder).weightsFolder(nil)))
        }
    }

    private static func readPipeline(
        _ folder: String, asked: String, weights: String?, firstStage: String?
    ) throws -> PipelineFolder {
        if let weights, weights != "unet" {
            throw ModelFolderError(
                folder, "is a pipeline, which has only 'unet', expected a checkpoint for '\(weights)'")
        }
        let unet = ModelFolder(join(folder, "unet"))
        let schedulerFile = join(folder, "scheduler/scheduler_config.json")
        return PipelineFolder(
            path: asked, unet: unet, unetConfig: try unetConfig(of: unet),
            scheduler: try SchedulerConfig(contentsOf: schedulerFile),
            firstStage: try firstStage.map { ModelFolder($0) } ?? autoencoder(in: folder),
            firstStageReference: nil, step: nil)
    }

    private static func readCheckpoint(
        _ folder: String, asked: String, weights: String?, firstStage: String?
    ) throws -> PipelineFolder {
        let note = try CheckpointNote(folder)
        let unet = ModelFolder(join(folder, try note.weightsFolder(weights)))
        return PipelineFolder(
            path: asked, unet: unet, unetConfig: try unetConfig(of: unet), scheduler: try note.scheduler(),
            firstStage: try note.firstStageFolder(firstStage), firstStageReference: note.firstStage,
            step: note.step)
    }

    /// A model's folder; where it lies in a pipeline or a checkpoint, that tells the rest.
    private static func readModel(
        _ folder: String, asked: String, firstStage: String?
    ) throws -> PipelineFolder {
        let parent = (absolute(folder) as NSString).deletingLastPathComponent
        let name = (absolute(folder) as NSString).lastPathComponent
        if exists(join(parent, indexFile)), name == "unet" {
            return try readPipeline(parent, asked: asked, weights: nil, firstStage: firstStage)
        }
        if exists(join(parent, CheckpointNote.fileName)), let note = try? CheckpointNote(parent),
            note.folders.contains(name)
        {
            return try readCheckpoint(parent, asked: asked, weights: name, firstStage: firstStage)
        }
        let unet = ModelFolder(folder)
        return PipelineFolder(
            path: asked, unet: unet, unetConfig: try unetConfig(of: unet), scheduler: nil,
            firstStage: firstStage.map { ModelFolder($0) }, firstStageReference: nil, step: nil)
    }

    private static func unetConfig(of folder: ModelFolder) throws -> UNet2DConfig {
        guard case .unet(let config) = try folder.readModelConfig() else {
            throw ModelFolderError(folder.path, "holds an autoencoder, expected a UNet2DModel to sample from")
        }
        return config
    }

    /// LDMPipeline calls its autoencoder `vqvae`, whatever its class; others call it `vae`.
    private static func autoencoder(in folder: String) throws -> ModelFolder? {
        let index = try ConfigNode(jsonFile: join(folder, indexFile))
        for name in ["vqvae", "vae"] {
            // A part that a pipeline does without is [null, null].
            guard case .sequence(let entry)? = index[name]?.value, entry.count == 2,
                case .string = entry[1].value
            else { continue }
            return ModelFolder(join(folder, name))
        }
        return nil
    }

    static func join(_ folder: String, _ name: String) -> String {
        (folder as NSString).appendingPathComponent(name)
    }

    static func exists(_ path: String) -> Bool { FileManager.default.fileExists(atPath: path) }

    static func absolute(_ path: String) -> String { URL(fileURLWithPath: path).standardizedFileURL.path }
}
