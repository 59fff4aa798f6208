import Foundation

// What the paths that users give name: a run's folder, its folder of checkpoints, or one checkpoint.

extension CheckpointFolder {
    /// The folder of checkpoints that a path names: that of a run, or the one of this path.
    package static func named(_ path: String) throws(CheckpointError) -> CheckpointFolder {
        if let folder = try found(at: path) { return folder }
        let inside = CheckpointFolder((path as NSString).appendingPathComponent("checkpoints"))
        if FileManager.default.fileExists(atPath: inside.path) { return inside }
        throw nothing(at: path, expected: "a run's folder")
    }

    /// The folder of checkpoints there, if there is a checkpoint in it.
    private static func found(at path: String) throws(CheckpointError) -> CheckpointFolder? {
        let inside = CheckpointFolder((path as NSString).appendingPathComponent("checkpoints"))
        for folder in [inside, CheckpointFolder(path)] where try !folder.steps().isEmpty { return folder }
        return nil
    }

    /// The checkpoints that a path names, newest first: those of a run, or the one of this path.
    ///
    /// - Parameter orElse: words that would be understood in the path's place.
    static func checkpoints(at path: String, orElse words: String = "") throws(CheckpointError) -> [String] {
        if let folder = try found(at: path) {
            return try folder.steps().reversed().map { folder.path(step: $0) }
        }
        // By its name a checkpoint, though the manifest may have been lost: that is for opening to tell.
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
    /// Opens the checkpoint that a path names, or the newest of the run that it names.
    package static func newest(at path: String) throws(CheckpointError) -> Checkpoint {
        try Checkpoint(opening: CheckpointFolder.checkpoints(at: path)[0])
    }

    /// What is said of a file: its path in the checkpoint.
    func told(_ problem: CheckpointError) -> String {
        let prefix = path.hasSuffix("/") ? path : path + "/"
        guard problem.path.hasPrefix(prefix) else { return problem.message }
        return "\(problem.path.dropFirst(prefix.count)): \(problem.detail)"
    }
}
