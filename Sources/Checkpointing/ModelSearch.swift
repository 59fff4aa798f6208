import FileFormats
import Foundation
import LDMModel
import Support

// Finds models by path: a diffusers pipeline, a model's own folder, a run, or one of its checkpoints.

extension PipelineFolder {
    /// Opens a folder of any supported kind. For a run, this is its newest checkpoint, or its finished model
    /// if it has none.
    ///
    /// - Parameters:
    ///   - weights: a folder in the checkpoint to use instead of the average, for example "unet".
    ///   - firstStage: the autoencoder's folder, instead of the recorded one.
    /// - Throws: `ModelFolderError`, `ConfigError` or `CheckpointError`.
    package static func read(
        _ path: String, weights: String? = nil, firstStage: String? = nil
    ) throws -> PipelineFolder {
        switch try ModelPlace(path) {
        case .pipeline(let folder):
            return try readPipeline(folder, asked: path, weights: weights, firstStage: firstStage)
        case .checkpoint(let folder):
            return try readCheckpoint(
                CheckpointModels(folder), asked: path, weights: weights, firstStage: firstStage)
        case .model(let folder):
            return try readModel(folder, asked: path, weights: weights, firstStage: firstStage)
        }
    }

    /// Only the U-Net's folder, located as in `read`; the other components of the pipeline may be missing.
    package static func locateUNet(_ path: String) throws -> ModelFolder {
        switch try ModelPlace(path) {
        case .model(let folder): return ModelFolder(folder)
        case .pipeline(let folder): return try PipelineIndex(folder).unet()
        case .checkpoint(let folder): return try CheckpointModels(folder).weights(nil)
        }
    }

    /// The folder of an autoencoder: `path` itself, or the autoencoder of a pipeline, of a checkpoint or run
    /// of `vae train`, or of a diffusion run.
    package static func locateAutoencoder(_ path: String) throws -> ModelFolder {
        switch try ModelPlace(path) {
        case .model(let folder): return ModelFolder(folder)
        case .pipeline(let folder):
            if let found = try PipelineIndex(folder).autoencoder { return found }
            throw ModelFolderError(folder, "is a pipeline in pixel space, expected one with an autoencoder")
        case .checkpoint(let folder):
            if let trained = try trainedAutoencoder(path) { return trained }
            if let found = try CheckpointModels(folder).firstStageFolder(nil) { return found }
            throw ModelFolderError(
                folder, "belongs to a run in pixel space, expected one with an autoencoder")
        }
    }

    /// The trained autoencoder's weights if `path` is a run or a checkpoint of `vae train`; otherwise nil.
    ///
    /// - Parameter weights: a folder in the checkpoint to use instead of the slowest average.
    package static func trainedAutoencoder(_ path: String, weights: String? = nil) throws -> ModelFolder? {
        guard case .checkpoint(let folder) = try ModelPlace(path) else { return nil }
        let models = try CheckpointModels(folder)
        return models.manifest.run.modelFolder == "unet" ? nil : try models.weights(weights)
    }

    private static func readPipeline(
        _ folder: String, asked: String, weights: String?, firstStage: String?
    ) throws -> PipelineFolder {
        try checkNoChoice(weights, folder, "is a pipeline")
        return try PipelineFolder(
            pipeline: folder, asked: asked, firstStage: try firstStage.map(locateAutoencoder))
    }

    private static func readCheckpoint(
        _ models: CheckpointModels, asked: String, weights: String?, firstStage: String?
    ) throws -> PipelineFolder {
        return try PipelineFolder(
            path: asked, unet: try models.weights(weights), scheduler: try models.scheduler(),
            firstStage: try models.firstStageFolder(firstStage),
            firstStageReference: models.manifest.run.firstStage, step: models.manifest.step)
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
        if CheckpointFormat.isCheckpoint(parent) {
            let models = try CheckpointModels(parent)
            if models.manifest.folders.contains(name) {
                return try readCheckpoint(
                    models, asked: asked, weights: weights ?? name, firstStage: firstStage)
            }
        }
        try checkNoChoice(weights, folder, "is a single model")
        return try PipelineFolder(
            path: asked, unet: ModelFolder(folder), scheduler: nil,
            firstStage: try firstStage.map(locateAutoencoder))
    }

    /// Throws if weights are selected outside a checkpoint; only a checkpoint has several.
    private static func checkNoChoice(
        _ weights: String?, _ folder: String, _ what: String
    ) throws(ModelFolderError) {
        if let weights, weights != "unet" {
            throw ModelFolderError(
                folder, "\(what), which has only 'unet'; expected a checkpoint with '\(weights)'")
        }
    }
}

/// The kind of folder in which a model is.
enum ModelPlace {
    /// Has a model_index.json.
    case pipeline(String)
    /// Has a checkpoint's manifest.json.
    case checkpoint(String)
    /// Has a config.json.
    case model(String)

    init(_ path: String) throws(ModelFolderError) {
        let join = PipelineFolder.join
        let exists = PipelineFolder.exists
        func place(_ folder: String) -> ModelPlace? {
            if exists(join(folder, PipelineFolder.indexFile)) { return .pipeline(folder) }
            if exists(join(folder, ModelFolder.configFile)) { return .model(folder) }
            if exists(join(folder, CheckpointManifest.fileName)) { return .checkpoint(folder) }
            return nil
        }
        guard exists(path) else {
            throw ModelFolderError(
                path, "does not exist; expected a run, a checkpoint or a diffusers model's folder")
        }
        if let found = place(path) {
            self = found
        } else if let newest = Self.newestCheckpoint(of: path) {
            self = .checkpoint(newest)
        } else if let finished = place(RunFolder(path).model) {
            self = finished
        } else {
            let isRun = exists(RunFolder(path).configuration)
            throw ModelFolderError(
                path,
                isRun
                    ? "is a run without a checkpoint yet; continue training it, or choose another"
                    : "is neither a run, a checkpoint, a diffusers pipeline nor a model's folder")
        }
    }

    /// The completed checkpoint with the highest step.
    private static func newestCheckpoint(of run: String) -> String? {
        let checkpoints = RunFolder(run).checkpoints
        let steps = (try? checkpoints.steps()) ?? []
        return steps.reversed().map(checkpoints.path(step:)).first {
            PipelineFolder.exists(PipelineFolder.join($0, CheckpointManifest.fileName))
        }
    }
}

/// The models in a checkpoint.
private struct CheckpointModels {
    let path: String
    let manifest: CheckpointManifest

    init(_ path: String) throws(CheckpointError) {
        self.path = path
        manifest = try CheckpointManifest(
            contentsOf: PipelineFolder.join(path, CheckpointManifest.fileName))
    }

    /// The requested weights, otherwise the slowest average, otherwise the model's own weights.
    func weights(_ asked: String?) throws(ModelFolderError) -> ModelFolder {
        let averages = manifest.folders.compactMap { folder in
            AverageProfile(name: folder).map { (folder, $0) }
        }
        let choices = manifest.folders.filter { $0 == manifest.run.modelFolder } + averages.map(\.0)
        let slowest = averages.max { $0.1 < $1.1 }?.0
        // Compare numbers, not strings: ema-power-0.10 is ema-power-0.1.
        let named = asked.flatMap(AverageProfile.init(name:)).flatMap { profile in
            averages.first { $0.1 == profile }?.0
        }
        let name = named ?? asked ?? slowest ?? manifest.run.modelFolder
        guard choices.contains(name) else {
            throw ModelFolderError(
                path, "has no weights '\(name)'; expected \(choices.joined(separator: " or "))")
        }
        return ModelFolder(PipelineFolder.join(path, name))
    }

    func scheduler() throws -> SchedulerConfig? {
        guard let text = manifest.run.schedulerConfig else { return nil }
        let json: JSONValue
        do throws(JSONError) {
            json = try JSONValue(parsing: text)
        } catch {
            throw ModelFolderError(path, "scheduler_config in the manifest: \(error)")
        }
        return try SchedulerConfig(config: ConfigNode(json, source: path), path: ["scheduler_config"])
    }

    /// The autoencoder's folder: the given one, otherwise the recorded one, whose path is relative to the
    /// run's working directory.
    func firstStageFolder(_ given: String?) throws -> ModelFolder? {
        if let given { return try PipelineFolder.locateAutoencoder(given) }
        guard let noted = manifest.run.firstStage?.path else { return nil }
        var places = [noted]
        if !noted.hasPrefix("/") {
            // For a run's folder runs/NAME, the working directory was two levels up.
            var folder = PipelineFolder.absolute(path)
            for _ in 0..<5 {
                folder = (folder as NSString).deletingLastPathComponent
                places.append(PipelineFolder.join(folder, noted))
            }
        }
        guard let found = places.first(where: PipelineFolder.exists) else {
            throw ModelFolderError(
                path,
                "was trained with the first stage '\(noted)', which does not exist; specify --first-stage")
        }
        return try PipelineFolder.locateAutoencoder(found)
    }
}
