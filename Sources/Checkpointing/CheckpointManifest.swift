import Foundation
import LDMModel
import Support

/// `manifest.json` of a checkpoint: what it holds and what made it. It is written last.
package struct CheckpointManifest: Sendable, Equatable {
    package static let fileName = "manifest.json"

    package var run: RunIdentity
    /// Updates made.
    package var step: Int
    /// Samples that went into them; where the data order goes on.
    package var samplesSeen: Int
    /// Ranks that wrote it; any number may read it.
    package var worldSize: Int
    /// Which of the starts of this run wrote it.
    package var attemptID: String
    /// Seconds since 1970.
    package var savedAt: Double
    /// How well the model did at this step; nil where nobody measured it.
    package var metric: CheckpointMetric?
    /// Of the steps that have been neither logged nor saved yet.
    package var sums: RunningSums
    /// The folders of tensors, the model's own first.
    package var folders: [String]
    /// The tensors that each folder holds.
    package var parameters: TensorTable
    package var files: [CheckpointFile]

    // MARK: Text

    /// The file's bytes: pretty JSON whose last member is the checksum of all before it.
    package func encoded() throws(JSONError) -> [UInt8] {
        let text = try json().text(pretty: true)
        // The closing brace makes room for one more member.
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
            // As text: JSON numbers end at 63 bits.
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
        self.sums = sums
        self.run = run
        self.step = step
        self.samplesSeen = samplesSeen
        self.worldSize = worldSize
        self.attemptID = attemptID
        self.savedAt = savedAt
        self.metric = metric
        self.folders = folders
        self.parameters = parameters
        self.files = files
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
