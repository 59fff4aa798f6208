import Foundation
import Support

// The lock as the tools take it that write or delete in a run's folder beside its training.

extension RunLock {
    /// Holds a run's lock while `body` runs.
    ///
    /// - Parameters:
    ///   - run: the run's folder, which must exist; nil where what `body` changes is no run's, and needs no lock.
    ///   - note: told, in a line, why it takes long.
    /// - Throws: `RunLockError` where the run is in use, before `body` is called.
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
    /// The folder of the run that these checkpoints or snapshots are of. nil where the path is neither `RUN/checkpoints`
    /// nor `RUN/ema-snapshots`: nobody trains into any other.
    package var run: String? {
        let names = [RunFolder("").checkpoints, RunFolder("").snapshots].map(\.path)
        return names.lazy.compactMap { parent(of: path, named: $0) }.first
    }
}

extension RunFolder {
    /// The run whose finished model lies at a path; nil where the path is not `RUN/model`.
    package static func run(ofModel path: String) -> String? {
        guard let run = parent(of: path, named: "model"),
            FileManager.default.fileExists(atPath: RunFolder(run).checkpoints.path)
        else { return nil }
        return run
    }
}

/// The folder that a path lies in, where its last part is `name`.
private func parent(of path: String, named name: String) -> String? {
    let place = URL(fileURLWithPath: path).standardizedFileURL
    guard place.lastPathComponent == name else { return nil }
    // As it was given, where that tells it: errors name it.
    let given = (path as NSString).deletingLastPathComponent
    return (path as NSString).lastPathComponent == name && !given.isEmpty
        ? given : place.deletingLastPathComponent().path
}
