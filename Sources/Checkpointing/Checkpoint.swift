import Foundation

/// A complete checkpoint on disk.
package struct Checkpoint: Sendable {
    package let path: String
    package let manifest: CheckpointManifest
    /// The weight files, in the manifest's order.
    let weights: [WeightFile]

    /// Opens a checkpoint. The manifest must match its checksum and be consistent, and all files must exist
    /// with their full size. Their contents are compared by `verify`.
    package init(opening path: String) throws(CheckpointError) {
        try self.init(manifestOf: path)
        if let problem = structuralProblems().first { throw problem }
    }

    /// Reads only the manifest; for tools that report all problems.
    init(manifestOf path: String) throws(CheckpointError) {
        self.path = path
        let file = (path as NSString).appendingPathComponent(CheckpointManifest.fileName)
        manifest = try CheckpointManifest(contentsOf: file)
        weights = try WeightFile.all(of: manifest, path: file)
        // Sorting and retention use the step in the name, so it must be correct.
        let name = URL(fileURLWithPath: path).standardizedFileURL.lastPathComponent
        if let step = CheckpointFolder.step(ofName: name), step != manifest.step {
            throw CheckpointError(
                .damaged, path, "has step \(manifest.step) in its manifest, but step \(step) in its name")
        }
    }

    /// The folders and files whose presence, type or size differs from the manifest. Each error's path ends
    /// with the path in the manifest.
    func structuralProblems() -> [CheckpointError] {
        var problems: [CheckpointError] = []
        var absent = Set<String>()
        for folder in manifest.folders {
            var status = stat()
            let result = lstat(at(folder), &status)
            if result == 0, status.st_mode & S_IFMT == S_IFDIR { continue }
            absent.insert(folder)
            problems.append(
                result == 0 || errno == ENOENT
                    ? CheckpointError(.damaged, at(folder), "is in the manifest, but no such folder exists")
                    : CheckpointError.system(at(folder), "cannot be examined"))
        }
        for file in manifest.files where !absent.contains(file.folder) {
            if let problem = structuralProblem(of: file) { problems.append(problem) }
        }
        return problems
    }

    private func structuralProblem(of file: CheckpointFile) -> CheckpointError? {
        var status = stat()
        guard lstat(at(file.path), &status) == 0 else {
            return errno == ENOENT
                ? CheckpointError(.damaged, at(file.path), "is in the manifest, but does not exist")
                : CheckpointError.system(at(file.path), "cannot be examined")
        }
        guard status.st_mode & S_IFMT == S_IFREG else {
            return CheckpointError(.damaged, at(file.path), "is not a regular file")
        }
        guard Int(status.st_size) == file.bytes else {
            return CheckpointError(
                .damaged, at(file.path), "is \(status.st_size) bytes, expected \(file.bytes); truncated?")
        }
        return nil
    }

    func at(_ relative: String) -> String { (path as NSString).appendingPathComponent(relative) }

    /// Checks that the checkpoint contains the folders and tensors of `buffers` and `table`.
    ///
    /// - Throws: one error with all names that do not match, and whether an option or the model is the cause.
    package func checkFits(_ buffers: [StateBuffer], _ table: TensorTable) throws(CheckpointError) {
        let absent = buffers.map(\.folder).filter { !manifest.folders.contains($0) }
        guard absent.isEmpty else {
            throw CheckpointError(
                .incompatible, path,
                "holds \(manifest.folders.joined(separator: ", ")), expected \(absent.joined(separator: ", ")) "
                    + "as well; resume with the configuration it was made with (\(manifest.run.name))")
        }
        if let difference = table.difference(from: manifest.parameters) {
            throw CheckpointError(
                .incompatible, path,
                "contains a different model than the configuration: \(difference)")
        }
    }
}
