import Configuration
import Foundation
import LDMModel
import Support

/// Why a folder cannot be a run's, in one line.
package struct RunFolderError: ReportableError, Equatable {
    package let path: String
    package let detail: String
    /// `errno` of the failed file operation; 0 for any other reason.
    package var code: Int32 = 0

    package init(path: String, detail: String, code: Int32 = 0) {
        self.path = path
        self.detail = detail
        self.code = code
    }

    package var message: String { "\(path): \(detail)" }
    package var exitStatus: Int32 { ExitStatus.forSystemError(code, otherwise: ExitStatus.usage) }
}

/// A run's folder: configuration, metrics, samples, checkpoints and the finished model, each at a fixed place.
package struct RunFolder: Sendable {
    package let path: String
    /// The right to write here; nil for who only reads, and on all ranks but the one that opened it.
    package let lock: RunLock?

    package init(_ path: String) { self.init(path, lock: nil) }

    private init(_ path: String, lock: RunLock?) { (self.path, self.lock) = (path, lock) }

    package var configuration: String { at("config.yaml") }
    package var metrics: String { at("metrics.jsonl") }
    package var samples: String { at("samples") }
    /// Results of evaluations.
    package var evaluation: String { at("evaluation") }
    /// The same metrics and samples for TensorBoard, and for Weights & Biases.
    package var tensorBoard: String { at("tensorboard") }
    package var wandb: String { at("wandb") }
    package var checkpoints: CheckpointFolder { CheckpointFolder(at("checkpoints")) }
    /// Averages by power functions of many steps, from which those of other widths are made: checkpoints without the rest.
    package var snapshots: CheckpointFolder { CheckpointFolder(at("ema-snapshots")) }
    /// The averaged weights as a diffusers pipeline.
    package var model: String { at("model") }

    /// `samples/samples_00001000.png`.
    package func samples(step: Int) -> String {
        let digits = String(step)
        let zeros = String(repeating: "0", count: max(0, 8 - digits.count))
        return at("samples/samples_\(zeros)\(digits).png")
    }

    private func at(_ name: String) -> String { (path as NSString).appendingPathComponent(name) }

    /// Makes the folder ready for a run, or takes up the run that is in it, and takes its lock, which the caller
    /// has to release. For one rank.
    ///
    /// - Parameters:
    ///   - name: the run's name in its configuration.
    ///   - resume: with `none` the folder must be empty or not there.
    ///   - note: told, in a line, what makes this take long.
    /// - Throws: where the folder holds something else or another run, is in use, or cannot be written. Then nothing
    ///   in it has changed.
    package static func open(
        _ path: String, name: String, resume: Resume, timing: RunLock.Timing = RunLock.Timing(),
        note: (String) -> Void = { _ in }
    ) throws -> RunFolder {
        let folder = RunFolder(path)
        try folder.check(name: name, resume: resume)
        try folder.create(path)
        let lock = try RunLock.take(path, timing: timing, note: note)
        do {
            // Again: a run may have begun and ended here since.
            try folder.check(name: name, resume: resume)
            // A start that ends after this one must not look like somebody else's folder.
            try folder.create(folder.checkpoints.path)
            // Nothing depends on samples: a run goes without.
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

    /// Writes the resolved configuration, whole or not at all; nothing where it is there already, which a full disk
    /// then does not matter to.
    package func writeConfiguration(_ yaml: String) throws(RunFolderError) {
        if FileManager.default.contents(atPath: configuration) == Data(yaml.utf8) { return }
        do {
            try AtomicFile.write(Array(yaml.utf8), to: configuration)
        } catch {
            throw RunFolderError(path: error.path, detail: error.detail, code: error.code)
        }
    }

    /// Beside the run's own files: the job's state, and what a launcher has done for it.
    package static let statusName = "status.json"
    package static let launchName = "launch.json"
    package static let logsName = "logs"

    /// What tells of a run from outside, which a run's own files do not depend on.
    private static let records: Set<String> = [
        RunLockFolder.name, statusName, launchName, logsName,
    ]

    /// Refuses a folder with other things in it than a run.
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
                    "holds \(entries.count) other files and no run, first '\(entries.sorted()[0])'; choose an "
                    + "empty or new folder as --output")
        }
        return entries
    }

    /// Refuses a folder with other things in it, and a run that is not to be resumed.
    private func check(name: String, resume: Resume) throws(RunFolderError) {
        let entries = try checkHoldsNothingElse()
        if entries.isEmpty { return }
        // A run that ended before its first file leaves empty folders.
        if !entries.contains("config.yaml"), !entries.contains("metrics.jsonl"),
            (try? checkpoints.steps())?.isEmpty == true
        {
            return
        }
        if resume.source == .none {
            throw RunFolderError(
                path: path,
                detail: "holds a run already; go on with it by --resume auto, or choose another --output")
        }
        if let found = runName, found != name {
            throw RunFolderError(
                path: path,
                detail:
                    "holds the run '\(found)', expected '\(name)' as in the configuration; choose another "
                    + "--output")
        }
    }

    /// The name in the folder's configuration; nil where there is none.
    package var runName: String? {
        guard let text = try? ConfigurationFile.read(configuration),
            case .string(let name) = try? YAMLNode.parse(text, source: configuration)["name"]?.value
        else { return nil }
        return name
    }
}
