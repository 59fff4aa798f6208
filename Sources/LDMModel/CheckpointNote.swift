import FileFormats
import Foundation
import Support

/// Identifies checkpoints and their format version; every reader checks it first.
package enum CheckpointFormat {
    /// `kind` in the manifest.
    package static let kind = "disttrain checkpoint"
    /// `format_version` of the manifests that this program writes and reads.
    package static let version = 2

    /// Whether a folder's manifest identifies it as a checkpoint.
    package static func isCheckpoint(_ folder: String) -> Bool {
        let file = PipelineFolder.join(folder, CheckpointNote.fileName)
        return PipelineFolder.exists(file)
            && (try? ConfigNode(jsonFile: file).json)?["kind"]?.stringValue == kind
    }

    /// Why a checkpoint of this version cannot be read; nil for the supported version.
    package static func refusal(of version: Int) -> String? {
        version == Self.version
            ? nil : "has format version \(version), expected \(Self.version); use the program that wrote it"
    }
}

/// The part of a checkpoint's manifest that sampling uses.
struct CheckpointNote {
    static let fileName = "manifest.json"

    let path: String
    let step: Int
    let modelFolder: String
    let folders: [String]
    let firstStage: FirstStageReference?
    private let schedulerText: String?

    init(_ path: String) throws {
        let file = PipelineFolder.join(path, Self.fileName)
        let json = try ConfigNode(jsonFile: file).json
        guard json["kind"]?.stringValue == CheckpointFormat.kind else {
            throw ModelFolderError(file, "is not a checkpoint's manifest, or damaged")
        }
        try self.init(path, json)
    }

    /// The checkpoint that contains a folder of weights; nil if `path` has no checkpoint manifest.
    ///
    /// - Throws: if it is a checkpoint that this program cannot read; otherwise its weights would be treated
    ///   as a bare model.
    static func around(_ path: String) throws -> CheckpointNote? {
        let file = PipelineFolder.join(path, fileName)
        guard PipelineFolder.exists(file), let json = try? ConfigNode(jsonFile: file).json,
            json["kind"]?.stringValue == CheckpointFormat.kind
        else { return nil }
        return try CheckpointNote(path, json)
    }

    private init(_ path: String, _ json: JSONValue) throws(ModelFolderError) {
        self.path = path
        let file = PipelineFolder.join(path, Self.fileName)
        if let version = json["format_version"]?.intValue, let refusal = CheckpointFormat.refusal(of: version)
        {
            throw ModelFolderError(file, refusal)
        }
        guard json["format_version"]?.intValue != nil, let step = json["step"]?.intValue,
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

    /// The requested weights, otherwise the slowest average, otherwise the model's own weights.
    func weights(_ asked: String?) throws(ModelFolderError) -> ModelFolder {
        let averages = folders.compactMap { folder in AverageProfile(name: folder).map { (folder, $0) } }
        let choices = folders.filter { $0 == modelFolder } + averages.map(\.0)
        let slowest = averages.max { $0.1 < $1.1 }?.0
        // Compare numbers, not strings: ema-power-0.10 is ema-power-0.1.
        let named = asked.flatMap(AverageProfile.init(name:)).flatMap { profile in
            averages.first { $0.1 == profile }?.0
        }
        let name = named ?? asked ?? slowest ?? modelFolder
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

    /// The autoencoder's folder: the given one, otherwise the recorded one, whose path is relative to the
    /// run's working directory.
    func firstStageFolder(_ given: String?) throws -> ModelFolder? {
        if let given { return try PipelineFolder.locateAutoencoder(given) }
        guard let noted = firstStage?.path else { return nil }
        var places = [noted]
        if !noted.hasPrefix("/") {
            // For a run's folder runs/NAME, the working directory was two levels up.
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
