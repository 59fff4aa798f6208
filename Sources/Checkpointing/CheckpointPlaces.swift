import Foundation

// Resolves the paths that users give: a run folder, its checkpoint folder, or one checkpoint.

extension CheckpointFolder {
    /// The checkpoint folder that a path names: that of a run, or the path itself.
    package static func named(_ path: String) throws(CheckpointError) -> CheckpointFolder {
        if let folder = try found(at: path) { return folder }
        let inside = CheckpointFolder((path as NSString).appendingPathComponent("checkpoints"))
        if FileManager.default.fileExists(atPath: inside.path) { return inside }
        throw nothing(at: path, expected: "a run's folder")
    }

    /// The checkpoint folder at a path; nil if it has no checkpoints.
    private static func found(at path: String) throws(CheckpointError) -> CheckpointFolder? {
        let inside = CheckpointFolder((path as NSString).appendingPathComponent("checkpoints"))
        for folder in [inside, CheckpointFolder(path)] where try !folder.steps().isEmpty { return folder }
        return nil
    }

    /// The checkpoints that a path names, newest first: those of a run, or the one at this path.
    ///
    /// - Parameter orElse: further accepted values, for the error message.
    static func checkpoints(at path: String, orElse words: String = "") throws(CheckpointError) -> [String] {
        if let folder = try found(at: path) {
            return try folder.steps().reversed().map { folder.path(step: $0) }
        }
        // The name is that of a checkpoint. If the manifest is missing, opening the checkpoint reports it.
        let name = URL(fileURLWithPath: path).standardizedFileURL.lastPathComponent
        let manifest = (path as NSString).appendingPathComponent(CheckpointManifest.fileName)
        let isCheckpoint = step(ofName: name) != nil && FileManager.default.fileExists(atPath: path)
        if isCheckpoint || FileManager.default.fileExists(atPath: manifest) { return [path] }
        throw nothing(
            at: path,
            expected: "\(words)a checkpoint's folder (…/checkpoints/step-00001000) or a run's folder")
    }

    private static func nothing(at path: String, expected: String) -> CheckpointError {
        let what = FileManager.default.fileExists(atPath: path) ? "holds no checkpoint" : "does not exist"
        return CheckpointError(.inaccessible, path, "\(what); expected \(expected)")
    }
}

extension Checkpoint {
    /// Opens the checkpoint at a path, or the newest one of the run at that path.
    package static func newest(at path: String) throws(CheckpointError) -> Checkpoint {
        try Checkpoint(opening: CheckpointFolder.checkpoints(at: path)[0])
    }

    /// The error message with the file's path relative to the checkpoint.
    func told(_ problem: CheckpointError) -> String {
        let prefix = path.hasSuffix("/") ? path : path + "/"
        guard problem.path.hasPrefix(prefix) else { return problem.message }
        return "\(problem.path.dropFirst(prefix.count)): \(problem.detail)"
    }
}
