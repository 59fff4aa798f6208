import FileFormats
import Foundation
import Support

/// The checksum of one tensor's bytes as stored in its file.
package struct TensorChecksum: Sendable, Equatable, Codable {
    package var name: String
    package var crc32c: String

    package init(name: String, crc32c: String) {
        self.name = name
        self.crc32c = crc32c
    }
}

/// One file of a checkpoint, with the size and checksums to verify it.
package struct CheckpointFile: Sendable, Equatable, Codable {
    /// FOLDER/NAME relative to the checkpoint, for example "unet/config.json".
    package var path: String
    package var bytes: Int
    package var crc32c: String
    /// The tensors of a weight file in the order of their bytes; empty for other files.
    package var tensors: [TensorChecksum]

    package init(path: String, bytes: Int, crc32c: String, tensors: [TensorChecksum] = []) {
        (self.path, self.bytes, self.crc32c, self.tensors) = (path, bytes, crc32c, tensors)
    }

    init(path: String, checksum: CRC32C, tensors: [TensorChecksum] = []) {
        self.init(path: path, bytes: checksum.count, crc32c: checksum.text, tensors: tensors)
    }

    /// The part of the path before the slash.
    package var folder: String { String(path.prefix { $0 != "/" }) }

    /// Whether it holds tensors.
    package var isWeights: Bool { path.hasSuffix(".safetensors") }
}

/// The metric by which `keep_best` compares checkpoints; lower is better.
package struct CheckpointMetric: Sendable, Equatable {
    /// "loss".
    package var name: String
    package var value: Double

    package init(name: String, value: Double) {
        self.name = name
        self.value = value
    }
}

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
    func relativeMessage(_ problem: CheckpointError) -> String {
        let prefix = path.hasSuffix("/") ? path : path + "/"
        guard problem.path.hasPrefix(prefix) else { return problem.message }
        return "\(problem.path.dropFirst(prefix.count)): \(problem.detail)"
    }
}

/// Why a checkpoint cannot be used or written, in one line that names the file or folder.
package struct CheckpointError: ReportableError, Equatable {
    package enum Kind: Equatable, Sendable {
        /// A file or folder is missing or cannot be read or written.
        case inaccessible
        /// The checkpoint is damaged or truncated; an older one may be usable.
        case damaged
        /// The checkpoint is intact, but belongs to another model or was written by a newer version; an older
        /// one would not be usable either.
        case incompatible
    }

    package let kind: Kind
    package let path: String
    package let detail: String
    /// `errno` of the failed file operation; 0 for any other reason.
    package let code: Int32

    package init(_ kind: Kind, _ path: String, _ detail: String, code: Int32 = 0) {
        (self.kind, self.path, self.detail, self.code) = (kind, path, detail, code)
    }

    /// A failed system call.
    ///
    /// - Parameter operation: such as "cannot be created"; the system's reason is appended.
    package static func system(_ path: String, _ operation: String, code: Int32 = errno) -> CheckpointError {
        CheckpointError(.inaccessible, path, "\(operation): \(systemReason(code))", code: code)
    }

    package var message: String { "\(path): \(detail)" }
    package var exitStatus: Int32 { ExitStatus.forSystemError(code, otherwise: ExitStatus.refused) }

    /// Converts an error that occurred while writing.
    init(writing error: any Error, to path: String) {
        switch error {
        case let error as CheckpointError: self = error
        case let error as SafetensorsError:
            self.init(.inaccessible, error.path, error.detail, code: error.code)
        case let error as FileError: self.init(.inaccessible, error.path, error.detail, code: error.code)
        default:
            self.init(.inaccessible, path, "cannot be written: \(error)", code: systemCode(of: error))
        }
    }
}
