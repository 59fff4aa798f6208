import FileFormats
import Foundation
import LDMModel
import Support

/// Identifies checkpoints and their format version; every reader checks it first.
package enum CheckpointFormat {
    /// `kind` in the manifest.
    package static let kind = "disttrain checkpoint"
    /// `format_version` of the manifests that this program writes and reads.
    package static let version = 2

    /// Whether a folder's manifest identifies it as a checkpoint.
    package static func isCheckpoint(_ folder: String) -> Bool {
        let file = PipelineFolder.join(folder, CheckpointManifest.fileName)
        return PipelineFolder.exists(file)
            && (try? ConfigNode(jsonFile: file).json)?["kind"]?.stringValue == kind
    }

    /// Why a checkpoint of this version cannot be read; nil for the supported version.
    package static func refusal(of version: Int) -> String? {
        version == Self.version
            ? nil : "has format version \(version), expected \(Self.version); use the program that wrote it"
    }
}

/// `manifest.json` of a checkpoint: its contents and provenance. It is written last.
package struct CheckpointManifest: Sendable, Equatable {
    package static let fileName = "manifest.json"

    package var run: RunIdentity
    /// Optimizer updates made.
    package var step: Int
    /// Samples used by these updates, which is the position in the data order.
    package var samplesSeen: Int
    /// Number of ranks that wrote the checkpoint; any number can read it.
    package var worldSize: Int
    /// Identifies the start of this run that wrote the checkpoint.
    package var attemptID: String
    /// Seconds since 1970.
    package var savedAt: Double
    /// The metric at this step; nil if it was not measured.
    package var metric: CheckpointMetric?
    /// Sums over the steps that have not been logged or saved yet.
    package var sums: RunningSums
    /// The folders of tensors; the model's own comes first.
    package var folders: [String]
    /// The tensors in each folder.
    package var parameters: TensorTable
    package var files: [CheckpointFile]

    // MARK: Text

    /// The file's contents: indented JSON whose last member is the checksum of everything before it.
    package func encoded() throws(JSONError) -> [UInt8] {
        let text = try json().text(pretty: true)
        // Remove the closing brace, since `trailer` adds one more member and closes the object.
        let body = Array(text.utf8.dropLast(2))
        return body + Array(Self.trailer(CRC32C.of(body)).utf8)
    }

    static func trailer(_ checksum: CRC32C) -> String {
        ",\n  \"manifest_crc32c\": \"\(checksum.text)\"\n}\n"
    }

    private func json() throws(JSONError) -> JSONValue {
        [
            "format_version": .integer(CheckpointFormat.version),
            "kind": .string(CheckpointFormat.kind),
            "step": .integer(step),
            "samples_seen": .integer(samplesSeen),
            "name": .string(run.name),
            // A string, because JSON integers here are limited to 63 bits.
            "seed": .string(String(run.seed)),
            "saved_at": .number(savedAt),
            "world_size": .integer(worldSize),
            "attempt_id": .string(attemptID),
            "program_version": .string(run.programVersion),
            "configuration": .string(run.configuration),
            "configuration_hash": .string(run.configurationHash),
            "dataset_fingerprint": run.datasetFingerprint.map { .string($0) } ?? .null,
            "first_stage": run.firstStage?.json ?? .null,
            "model_folder": .string(run.modelFolder),
            "model_config": .string(run.modelConfig),
            "scheduler_config": run.schedulerConfig.map { .string($0) } ?? .null,
            "metric": metric.map { ["name": .string($0.name), "value": .number($0.value)] } ?? .null,
            "running_sums": sums == RunningSums() ? .null : sums.json,
            "folders": .array(folders.map { .string($0) }),
            "parameters": parameters.json,
            "files": .array(files.map(Self.row)),
        ]
    }

    private static func row(_ file: CheckpointFile) -> JSONValue {
        var row: JSONObject = [
            "path": .string(file.path), "bytes": .integer(file.bytes), "crc32c": .string(file.crc32c),
        ]
        if file.isWeights {
            row["tensors"] = .array(
                file.tensors.map { ["name": .string($0.name), "crc32c": .string($0.crc32c)] })
        }
        return .object(row)
    }

    package init(
        run: RunIdentity, step: Int, samplesSeen: Int, worldSize: Int, attemptID: String, savedAt: Double,
        metric: CheckpointMetric? = nil, sums: RunningSums = RunningSums(), folders: [String],
        parameters: TensorTable, files: [CheckpointFile]
    ) {
        (self.sums, self.run, self.step, self.samplesSeen) = (sums, run, step, samplesSeen)
        (self.worldSize, self.attemptID, self.savedAt) = (worldSize, attemptID, savedAt)
        (self.metric, self.folders) = (metric, folders)
        (self.parameters, self.files) = (parameters, files)
    }
}

extension RunningSums {
    fileprivate var json: JSONValue {
        [
            "log": [
                "steps": .integer(logged.steps), "loss": .number(logged.loss),
                "gradient_norm": .number(logged.gradientNorm),
                "parts": .array(logged.parts.map { ["name": .string($0.name), "value": .number($0.value)] }),
            ],
            "checkpoint": ["steps": .integer(saved.steps), "loss": .number(saved.loss)],
        ]
    }
}

/// The identity of a run: the part of a manifest that is the same in all of its checkpoints.
package struct RunIdentity: Sendable, Equatable {
    package var name: String
    package var seed: UInt64
    /// The resolved configuration as YAML.
    package var configuration: String
    /// Folder of the trained weights: "unet", or "vae" if an autoencoder is trained.
    package var modelFolder: String
    /// The model's `config.json`, with diffusers' keys.
    package var modelConfig: String
    /// `scheduler_config.json` for sampling; nil for an autoencoder.
    package var schedulerConfig: String?
    package var datasetFingerprint: String?
    /// Set for a run, not for a checkpoint: the value that an earlier version would have written as
    /// `datasetFingerprint`.
    package var earlierDatasetFingerprint: EarlierFingerprint?
    /// nil in pixel space.
    package var firstStage: FirstStageReference?
    package var programVersion: String

    package init(
        name: String, seed: UInt64, configuration: String, modelFolder: String = "unet", modelConfig: String,
        schedulerConfig: String? = nil, datasetFingerprint: String? = nil,
        earlierDatasetFingerprint: EarlierFingerprint? = nil,
        firstStage: FirstStageReference? = nil, programVersion: String
    ) {
        (self.name, self.seed, self.configuration) = (name, seed, configuration)
        (self.modelFolder, self.modelConfig) = (modelFolder, modelConfig)
        (self.schedulerConfig, self.datasetFingerprint) = (schedulerConfig, datasetFingerprint)
        (self.earlierDatasetFingerprint, self.firstStage) = (earlierDatasetFingerprint, firstStage)
        self.programVersion = programVersion
    }

    /// 16 hexadecimal digits that identify the configuration.
    package var configurationHash: String {
        var hash = SourceFingerprint()
        hash.add(configuration)
        return hash.text
    }
}

/// Sums over the steps since the last logged step and since the last save. They are stored in checkpoints, so
/// that a run that was stopped between two logged steps resumes with exactly the metrics it would have had.
package struct RunningSums: Sendable, Equatable {
    /// Sums since the last logged step.
    package struct Logged: Sendable, Equatable {
        package var steps = 0
        package var loss = 0.0
        package var gradientNorm = 0.0
        package var parts: [(name: String, value: Double)] = []

        package init() {}

        package static func == (a: Self, b: Self) -> Bool {
            a.steps == b.steps && a.loss == b.loss && a.gradientNorm == b.gradientNorm
                && a.parts.elementsEqual(b.parts, by: ==)
        }
    }

    /// Sums since the last save that the configuration scheduled.
    package struct Saved: Sendable, Equatable {
        package var steps = 0
        package var loss = 0.0

        package init() {}
    }

    package var logged = Logged()
    package var saved = Saved()

    package init() {}
}
