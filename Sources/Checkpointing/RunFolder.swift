import Configuration
import Foundation
import LDMModel
import Support

/// Why a folder cannot be used as a run folder, in one line.
package struct RunFolderError: ReportableError, Equatable {
    package let path: String
    package let detail: String
    /// `errno` of the failed file operation; 0 for any other reason.
    package var code: Int32 = 0

    package init(path: String, detail: String, code: Int32 = 0) {
        (self.path, self.detail, self.code) = (path, detail, code)
    }

    package var message: String { "\(path): \(detail)" }
    package var exitStatus: Int32 { ExitStatus.forSystemError(code, otherwise: ExitStatus.usage) }
}

/// A run folder: configuration, metrics, samples, checkpoints and the final model, each at a fixed path.
package struct RunFolder: Sendable {
    package let path: String
    /// The lock that permits writing here; nil for readers, and on all ranks except the one that opened the
    /// folder.
    package let lock: RunLock?

    package init(_ path: String) { self.init(path, lock: nil) }

    private init(_ path: String, lock: RunLock?) { (self.path, self.lock) = (path, lock) }

    package var configuration: String { at("config.yaml") }
    package var metrics: String { at("metrics.jsonl") }
    package var samples: String { at("samples") }
    /// Evaluation results.
    package var evaluation: String { at("evaluation") }
    /// The same metrics and samples in the formats of TensorBoard and of Weights & Biases.
    package var tensorBoard: String { at("tensorboard") }
    package var wandb: String { at("wandb") }
    package var checkpoints: CheckpointFolder { CheckpointFolder(at("checkpoints")) }
    /// Checkpoints of many steps that contain only the power-function averages, from which averages of other
    /// widths are reconstructed.
    package var snapshots: CheckpointFolder { CheckpointFolder(at("ema-snapshots")) }
    /// The averaged weights as a diffusers pipeline.
    package var model: String { at("model") }

    /// `samples/samples_00001000.png`.
    package func samples(step: Int) -> String { at("samples/samples_\(padded(step, digits: 8)).png") }

    private func at(_ name: String) -> String { (path as NSString).appendingPathComponent(name) }

    /// Prepares the folder for a new run or for resuming the run in it, and takes its lock, which the caller
    /// has to release. For one rank.
    ///
    /// - Parameters:
    ///   - name: the run's name in its configuration.
    ///   - resume: with `none`, the folder must be empty or must not exist.
    ///   - note: called with one line that explains a long wait.
    /// - Throws: if the folder contains other files or another run, is in use, or cannot be written. Then
    ///   nothing in it has changed.
    package static func open(
        _ path: String, name: String, resume: Resume, timing: RunLock.Timing = RunLock.Timing(),
        note: (String) -> Void = { _ in }
    ) throws -> RunFolder {
        let folder = RunFolder(path)
        try folder.check(name: name, resume: resume)
        try folder.create(path)
        let lock = try RunLock.take(path, timing: timing, note: note)
        do {
            // Check again: another run may have started and ended here in the meantime.
            try folder.check(name: name, resume: resume)
            // Create the checkpoint folder now, so that a start that fails after this point leaves a folder
            // that is recognizable as a run.
            try folder.create(folder.checkpoints.path)
            // Samples are optional, so a failure here does not stop the run.
            try? folder.create(folder.samples)
            PipelineFolder.recoverInterruptedWrite(at: folder.model)
        } catch {
            lock.release()
            throw error
        }
        return RunFolder(path, lock: lock)
    }

    private func create(_ folder: String) throws(RunFolderError) {
        do {
            try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        } catch {
            throw RunFolderError(
                path: folder, detail: "cannot be created: \(systemReason(of: error))",
                code: systemCode(of: error))
        }
    }

    /// Writes the resolved configuration atomically. Does nothing if the file already has these contents, so
    /// that a full disk does not prevent a resume.
    package func writeConfiguration(_ yaml: String) throws(RunFolderError) {
        if FileManager.default.contents(atPath: configuration) == Data(yaml.utf8) { return }
        do {
            try AtomicFile.write(Array(yaml.utf8), to: configuration)
        } catch {
            throw RunFolderError(path: error.path, detail: error.detail, code: error.code)
        }
    }

    /// Names of files next to the run's own: the job's state, the launcher's record, and its logs.
    package static let statusName = "status.json"
    package static let launchName = "launch.json"
    package static let logsName = "logs"

    /// Entries that describe a run from outside; the run's own files do not depend on them.
    private static let records: Set<String> = [
        RunLockFolder.name, statusName, launchName, logsName,
    ]

    /// Throws if the folder contains anything other than a run.
    ///
    /// - Returns: the run's own files and folders.
    @discardableResult
    package func checkHoldsNothingElse() throws(RunFolderError) -> [String] {
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: path, isDirectory: &isFolder) else { return [] }
        guard isFolder.boolValue else {
            throw RunFolderError(
                path: path, detail: "is a file, expected a folder for the run; choose another --output")
        }
        let entries: [String]
        do {
            entries = try FileManager.default.contentsOfDirectory(atPath: path)
                .filter { name in !Self.records.contains { name == $0 || name.hasPrefix("\($0).") } }
        } catch {
            throw RunFolderError(
                path: path, detail: "cannot be listed: \(systemReason(of: error))",
                code: systemCode(of: error))
        }
        guard
            entries.isEmpty
                || !Set(entries).isDisjoint(with: ["config.yaml", "metrics.jsonl", "checkpoints"])
        else {
            throw RunFolderError(
                path: path,
                detail:
                    "holds \(entries.count) other files but no run, first '\(entries.sorted()[0])'; choose an "
                    + "empty or new folder as --output")
        }
        return entries
    }

    /// Throws if the folder contains anything else, or a run that must not be resumed.
    private func check(name: String, resume: Resume) throws(RunFolderError) {
        let entries = try checkHoldsNothingElse()
        if entries.isEmpty { return }
        // A run that ended before it wrote its first file leaves empty folders.
        if !entries.contains("config.yaml"), !entries.contains("metrics.jsonl"),
            (try? checkpoints.steps())?.isEmpty == true
        {
            return
        }
        if resume.source == .none {
            throw RunFolderError(
                path: path,
                detail: "already contains a run; resume it with --resume auto, or choose another --output")
        }
        if let found = runName, found != name {
            throw RunFolderError(
                path: path,
                detail:
                    "contains the run '\(found)', expected '\(name)' as in the configuration; choose another "
                    + "--output")
        }
    }

    /// The name in the folder's configuration; nil if it cannot be read.
    package var runName: String? {
        guard let text = try? ConfigurationFile.read(configuration),
            case .string(let name) = try? YAMLNode.parse(text, source: configuration)["name"]?.value
        else { return nil }
        return name
    }
}

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
