import Foundation

/// What kind of folder a path names.
enum PipelinePlace {
    /// Has a model_index.json.
    case pipeline(String)
    /// Has a checkpoint's manifest.json.
    case checkpoint(String)
    /// Has a config.json.
    case model(String)

    init(_ path: String) throws(ModelFolderError) {
        let join = PipelineFolder.join
        let exists = PipelineFolder.exists
        func place(_ folder: String) -> PipelinePlace? {
            if exists(join(folder, PipelineFolder.indexFile)) { return .pipeline(folder) }
            if exists(join(folder, ModelFolder.configFile)) { return .model(folder) }
            if exists(join(folder, CheckpointNote.fileName)) { return .checkpoint(folder) }
            return nil
        }
        guard exists(path) else {
            throw ModelFolderError(
                path, "does not exist; expected a run, a checkpoint or a diffusers model's folder")
        }
        if let found = place(path) {
            self = found
        } else if let newest = Self.newestCheckpoint(in: join(path, "checkpoints")) {
            self = .checkpoint(newest)
        } else if let finished = place(join(path, "model")) {
            self = finished
        } else {
            let isRun = exists(join(path, "config.yaml"))
            throw ModelFolderError(
                path,
                isRun
                    ? "is a run without a checkpoint yet; train on, or name another"
                    : "is neither a run, a checkpoint, a diffusers pipeline nor a model's folder")
        }
    }

    /// The finished checkpoint of the highest step.
    private static func newestCheckpoint(in folder: String) -> String? {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        let steps = names.compactMap { name -> (step: Int, name: String)? in
            guard name.hasPrefix("step-"), let step = Int(name.dropFirst(5)) else { return nil }
            return (step, name)
        }
        return steps.sorted { $0.step > $1.step }.map { PipelineFolder.join(folder, $0.name) }
            .first { PipelineFolder.exists(PipelineFolder.join($0, CheckpointNote.fileName)) }
    }
}

/// What sampling reads of a checkpoint's manifest.
struct CheckpointNote {
    static let fileName = "manifest.json"

    let path: String
    let step: Int
    let modelFolder: String
    let folders: [String]
    let firstStage: FirstStageReference?
    private let schedulerText: String?

    init(_ path: String) throws {
        self.path = path
        let file = PipelineFolder.join(path, Self.fileName)
        let json = try ConfigNode(jsonFile: file).json
        guard json["kind"]?.stringValue == "disttrain checkpoint", let step = json["step"]?.intValue,
            let modelFolder = json["model_folder"]?.stringValue, modelFolder.isPlainFileName,
            let folders = json["folders"]?.arrayValue?.compactMap(\.stringValue)
        else {
            throw ModelFolderError(file, "is not a checkpoint's manifest, or damaged")
        }
        self.step = step
        self.modelFolder = modelFolder
        self.folders = folders
        firstStage = FirstStageReference(json["first_stage"])
        schedulerText = json["scheduler_config"]?.stringValue
    }

    /// The weights asked for, else the slowest average, else the model's own.
    func weights(_ asked: String?) throws(ModelFolderError) -> ModelFolder {
        let averages = folders.compactMap { name in
            name.hasPrefix("ema-") ? Double(name.dropFirst(4)).map { (name: name, decay: $0) } : nil
        }
        let choices = [modelFolder] + averages.map(\.name)
        let name = asked ?? averages.max { $0.decay < $1.decay }?.name ?? modelFolder
        guard choices.contains(name) else {
            throw ModelFolderError(
                path, "has no weights '\(name)'; expected \(choices.joined(separator: " or "))")
        }
        return ModelFolder(PipelineFolder.join(path, name))
    }

    func scheduler() throws -> SchedulerConfig? {
        guard let schedulerText else { return nil }
        let json: JSONValue
        do throws(JSONError) {
            json = try JSONValue(parsing: schedulerText)
        } catch {
            throw ModelFolderError(path, "scheduler_config in the manifest: \(error)")
        }
        return try SchedulerConfig(config: ConfigNode(json, source: path), path: ["scheduler_config"])
    }

    /// The autoencoder's folder: the one given, else the noted one, which was relative to where the run was started.
    func firstStageFolder(_ given: String?) throws -> ModelFolder? {
        if let given { return try PipelineFolder.locateAutoencoder(given) }
        guard let noted = firstStage?.path else { return nil }
        var places = [noted]
        if !noted.hasPrefix("/") {
            // Where a run's folder is runs/NAME, the start was two folders up.
            var folder = PipelineFolder.absolute(path)
            for _ in 0..<5 {
                folder = (folder as NSString).deletingLastPathComponent
                places.append(PipelineFolder.join(folder, noted))
            }
        }
        guard let found = places.first(where: PipelineFolder.exists) else {
            throw ModelFolderError(
                path, "was trained behind the first stage '\(noted)', which is not there; give --first-stage")
        }
        return try PipelineFolder.locateAutoencoder(found)
    }
}
