import Foundation

/// The kind of folder at a path.
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

    /// The completed checkpoint with the highest step.
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
