import Foundation
import Support

// The lock for tools that write or delete in a run folder independently of training.

extension RunLock {
    /// Holds a run's lock while `body` runs.
    ///
    /// - Parameters:
    ///   - run: the run folder, which must exist; nil if `body` does not change a run, in which case no lock
    ///     is taken.
    ///   - note: called with one line that explains a long wait.
    /// - Throws: `RunLockError` if the run is in use, before `body` is called.
    package static func holding<R>(
        _ run: String?, timing: Timing = Timing(), note: (String) -> Void, _ body: () throws -> R
    ) throws -> R {
        guard let run else { return try body() }
        let lock = try take(run, timing: timing, wayOut: "wait for its end or stop it", note: note)
        defer { lock.release() }
        return try body()
    }
}

extension CheckpointFolder {
    /// The run folder that contains these checkpoints or snapshots; nil if the path is neither
    /// `RUN/checkpoints` nor `RUN/ema-snapshots`, since training does not use any other folder.
    package var run: String? {
        let names = [RunFolder("").checkpoints, RunFolder("").snapshots].map(\.path)
        return names.lazy.compactMap { parent(of: path, named: $0) }.first
    }
}

extension RunFolder {
    /// The run whose final model is at a path; nil if the path is not `RUN/model`.
    package static func run(ofModel path: String) -> String? {
        guard let run = parent(of: path, named: "model"),
            FileManager.default.fileExists(atPath: RunFolder(run).checkpoints.path)
        else { return nil }
        return run
    }
}

/// The parent of a path whose last component is `name`; nil for any other path.
private func parent(of path: String, named name: String) -> String? {
    let place = URL(fileURLWithPath: path).standardizedFileURL
    guard place.lastPathComponent == name else { return nil }
    // Prefer the parent as the user wrote it, since errors name it.
    let given = (path as NSString).deletingLastPathComponent
    return (path as NSString).lastPathComponent == name && !given.isEmpty
        ? given : place.deletingLastPathComponent().path
}
