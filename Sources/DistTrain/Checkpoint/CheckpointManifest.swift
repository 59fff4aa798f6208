import Foundation
import LDMModel

/// What a run is: the part of a manifest that stays the same from checkpoint to checkpoint.
public struct RunIdentity: Sendable, Equatable {
    public var name: String
    public var seed: UInt64
    /// The resolved configuration, YAML.
    public var configuration: String
    /// Folder of the trained weights: "unet", or "vae" where an autoencoder is trained.
    public var modelFolder: String
    /// The model's `config.json`, diffusers' keys.
    public var modelConfig: String
    /// `scheduler_config.json` for sampling; nil for an autoencoder.
    public var schedulerConfig: String?
    public var datasetFingerprint: String?
    /// nil in pixel space.
    public var firstStage: FirstStageReference?
    public var programVersion: String

    public init(
        name: String, seed: UInt64, configuration: String, modelFolder: String = "unet", modelConfig: String,
        schedulerConfig: String? = nil, datasetFingerprint: String? = nil,
        firstStage: FirstStageReference? = nil, programVersion: String
    ) {
        self.name = name
        self.seed = seed
        self.configuration = configuration
        self.modelFolder = modelFolder
        self.modelConfig = modelConfig
        self.schedulerConfig = schedulerConfig
        self.datasetFingerprint = datasetFingerprint
        self.firstStage = firstStage
        self.programVersion = programVersion
    }

    /// 16 hexadecimal digits that tell one configuration from another.
    public var configurationHash: String {
        var hash = SourceFingerprint()
        hash.add(configuration)
        return hash.text
    }
}

/// One file of a checkpoint, and how to know that it is whole.
public struct CheckpointFile: Sendable, Equatable, Codable {
    /// Relative to the checkpoint, for example "unet/config.json".
    public var path: String
    public var bytes: Int
    public var crc32c: String

    public init(path: String, bytes: Int, crc32c: String) {
        self.path = path
        self.bytes = bytes
        self.crc32c = crc32c
    }

    init(path: String, checksum: CRC32C) {
        self.init(path: path, bytes: checksum.count, crc32c: checksum.text)
    }
}

/// `manifest.json` of a checkpoint: what it holds and what made it. It is written last.
public struct CheckpointManifest: Sendable, Equatable {
    public static let fileName = "manifest.json"
    public static let formatVersion = 1

    public var run: RunIdentity
    /// Updates made.
    public var step: Int
    /// Samples that went into them; where the data order goes on.
    public var samplesSeen: Int
    /// Ranks that wrote it; any number may read it.
    public var worldSize: Int
    /// Which of the starts of this run wrote it.
    public var attemptID: String
    /// Seconds since 1970.
    public var savedAt: Double
    /// The folders of tensors, the model's own first.
    public var folders: [String]
    /// The tensors that each folder holds.
    public var parameters: TensorTable
    public var files: [CheckpointFile]

    // MARK: Text

    /// The file's bytes: pretty JSON whose last member is the checksum of all before it.
    public func encoded() throws(JSONError) -> [UInt8] {
        let text = try json().text(pretty: true)
        // The closing brace makes room for one more member.
        let body = Array(text.utf8.dropLast(2))
        return body + Array(Self.trailer(CRC32C.of(body)).utf8)
    }

    private static func trailer(_ checksum: CRC32C) -> String {
        ",\n  \"manifest_crc32c\": \"\(checksum.text)\"\n}\n"
    }

    private func json() throws(JSONError) -> JSONValue {
        [
            "format_version": .integer(Self.formatVersion),
            "kind": "disttrain checkpoint",
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
            "folders": .array(folders.map { .string($0) }),
            "parameters": parameters.json,
            "files": .array(
                files.map {
                    ["path": .string($0.path), "bytes": .integer($0.bytes), "crc32c": .string($0.crc32c)]
                }),
        ]
    }

    /// Reads a manifest and checks its checksum.
    public init(contentsOf path: String) throws(CheckpointError) {
        guard let data = FileManager.default.contents(atPath: path) else {
            throw CheckpointError(
                .damaged, path, "is not there or cannot be read; the checkpoint was never finished")
        }
        let bytes = [UInt8](data)
        let trailerLength = Self.trailer(CRC32C()).utf8.count
        let body = Array(bytes.dropLast(trailerLength))
        guard bytes.count > trailerLength,
            bytes.suffix(trailerLength).elementsEqual(Self.trailer(CRC32C.of(body)).utf8)
        else {
            throw CheckpointError(
                .damaged, path, "does not agree with its own checksum; damaged or cut short")
        }
        let json: JSONValue
        do throws(JSONError) {
            json = try JSONValue(parsing: bytes[...])
        } catch {
            throw CheckpointError(.damaged, path, error.description)
        }
        try self.init(json, path: path)
    }

    private init(_ json: JSONValue, path: String) throws(CheckpointError) {
        guard json["kind"]?.stringValue == "disttrain checkpoint",
            let version = json["format_version"]?.intValue
        else {
            throw CheckpointError(.damaged, path, "is no checkpoint's manifest")
        }
        guard version == Self.formatVersion else {
            throw CheckpointError(
                .incompatible, path,
                "has format version \(version), expected \(Self.formatVersion); use the program that wrote it"
            )
        }
        func field<Value>(_ key: String, _ value: Value?) throws(CheckpointError) -> Value {
            guard let value else { throw CheckpointError(.damaged, path, "has no usable '\(key)'") }
            return value
        }
        func text(_ key: String) throws(CheckpointError) -> String { try field(key, json[key]?.stringValue) }
        func number(_ key: String) throws(CheckpointError) -> Int { try field(key, json[key]?.intValue) }
        run = RunIdentity(
            name: try text("name"), seed: try field("seed", UInt64(try text("seed"))),
            configuration: try text("configuration"), modelFolder: try text("model_folder"),
            modelConfig: try text("model_config"), schedulerConfig: json["scheduler_config"]?.stringValue,
            datasetFingerprint: json["dataset_fingerprint"]?.stringValue,
            firstStage: FirstStageReference(json["first_stage"]),
            programVersion: try text("program_version"))
        step = try number("step")
        samplesSeen = try number("samples_seen")
        worldSize = try number("world_size")
        attemptID = try text("attempt_id")
        savedAt = try field("saved_at", json["saved_at"]?.doubleValue)
        folders = try field("folders", json["folders"]?.arrayValue).compactMap(\.stringValue)
        parameters = try field("parameters", TensorTable(json["parameters"]))
        files = []
        for row in try field("files", json["files"]?.arrayValue) {
            files.append(
                CheckpointFile(
                    path: try field("files.path", row["path"]?.stringValue),
                    bytes: try field("files.bytes", row["bytes"]?.intValue),
                    crc32c: try field("files.crc32c", row["crc32c"]?.stringValue)))
        }
        guard files.allSatisfy({ !$0.path.hasPrefix("/") && !$0.path.split(separator: "/").contains("..") })
        else {
            throw CheckpointError(.damaged, path, "names a file outside its folder")
        }
    }

    public init(
        run: RunIdentity, step: Int, samplesSeen: Int, worldSize: Int, attemptID: String, savedAt: Double,
        folders: [String], parameters: TensorTable, files: [CheckpointFile]
    ) {
        self.run = run
        self.step = step
        self.samplesSeen = samplesSeen
        self.worldSize = worldSize
        self.attemptID = attemptID
        self.savedAt = savedAt
        self.folders = folders
        self.parameters = parameters
        self.files = files
    }
}
