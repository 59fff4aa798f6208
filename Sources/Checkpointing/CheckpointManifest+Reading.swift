import LDMModel
import Support

extension CheckpointManifest {
    /// Maximum size of a manifest in bytes, enough for about 500,000 tensors.
    private static let sizeLimit = 256 << 20

    /// Reads a manifest, compares its checksum and checks its consistency.
    package init(contentsOf path: String) throws(CheckpointError) {
        let bytes: [UInt8]
        do throws(CheckpointError) {
            bytes = try CheckpointReader(path).readAll(limit: Self.sizeLimit)
        } catch {
            guard error.kind == .damaged else { throw error }
            throw CheckpointError(.damaged, path, "\(error.detail); the checkpoint was never finished")
        }
        try self.init(parsing: bytes, path: path)
    }

    /// - Parameter path: the path to name in errors.
    init(parsing bytes: [UInt8], path: String) throws(CheckpointError) {
        let trailerLength = Self.trailer(CRC32C()).utf8.count
        let body = Array(bytes.dropLast(trailerLength))
        guard bytes.count > trailerLength,
            bytes.suffix(trailerLength).elementsEqual(Self.trailer(CRC32C.of(body)).utf8)
        else {
            throw CheckpointError(
                .damaged, path, "does not match its own checksum; damaged or truncated")
        }
        let json: JSONValue
        do throws(JSONError) {
            json = try JSONValue(parsing: bytes[...])
        } catch {
            throw CheckpointError(.damaged, path, error.description)
        }
        try self.init(ManifestFields(json, path: path))
    }

    private init(_ json: ManifestFields) throws(CheckpointError) {
        guard json["kind"]?.stringValue == CheckpointFormat.kind,
            let version = json["format_version"]?.intValue
        else { throw json.damaged("is not a checkpoint manifest") }
        if let refusal = CheckpointFormat.refusal(of: version) {
            throw CheckpointError(.incompatible, json.path, refusal)
        }
        run = try RunIdentity(json)
        step = try json.count("step")
        samplesSeen = try json.count("samples_seen")
        worldSize = try json.count("world_size")
        attemptID = try json.text("attempt_id")
        savedAt = try json.value("saved_at", json["saved_at"]?.doubleValue)
        metric = try json.metric()
        sums = try json.sums()
        folders = try json.folders()
        parameters = try json.value("parameters", TensorTable(json["parameters"]))
        files = try json.files()
        // A snapshot contains only averages.
        let areAverages = !folders.isEmpty && folders.allSatisfy { AverageProfile(name: $0) != nil }
        guard folders.contains(run.modelFolder) || areAverages else {
            throw json.damaged("does not list the model's folder '\(run.modelFolder)'")
        }
        for file in files where !folders.contains(file.folder) {
            throw json.damaged("lists the file '\(file.path)', which is in none of its folders")
        }
    }
}

extension RunIdentity {
    fileprivate init(_ json: ManifestFields) throws(CheckpointError) {
        self.init(
            name: try json.text("name"), seed: try json.value("seed", UInt64(try json.text("seed"))),
            configuration: try json.text("configuration"), modelFolder: try json.text("model_folder"),
            modelConfig: try json.text("model_config"),
            schedulerConfig: json["scheduler_config"]?.stringValue,
            datasetFingerprint: json["dataset_fingerprint"]?.stringValue,
            firstStage: FirstStageReference(json["first_stage"]),
            programVersion: try json.text("program_version"))
    }
}

/// The fields of a manifest. Each is validated as it is read, since the checksum detects accidental damage
/// but not manipulation.
private struct ManifestFields {
    let json: JSONValue
    let path: String

    init(_ json: JSONValue, path: String) {
        self.json = json
        self.path = path
    }

    subscript(key: String) -> JSONValue? { json[key] }

    func damaged(_ what: String) -> CheckpointError { CheckpointError(.damaged, path, what) }

    func value<Value>(_ key: String, _ value: Value?) throws(CheckpointError) -> Value {
        guard let value else { throw damaged("has no valid '\(key)'") }
        return value
    }

    func text(_ key: String) throws(CheckpointError) -> String { try value(key, json[key]?.stringValue) }

    /// A non-negative integer.
    func count(_ key: String) throws(CheckpointError) -> Int {
        let number = try value(key, json[key]?.intValue)
        return try value(key, number >= 0 ? number : nil)
    }

    func metric() throws(CheckpointError) -> CheckpointMetric? {
        guard let metric = json["metric"], !metric.isNull else { return nil }
        return CheckpointMetric(
            name: try value("metric.name", metric["name"]?.stringValue),
            value: try value("metric.value", metric["value"]?.doubleValue))
    }

    func sums() throws(CheckpointError) -> RunningSums {
        var sums = RunningSums()
        guard let found = json["running_sums"], !found.isNull else { return sums }
        let (log, save) = (found["log"], found["checkpoint"])
        sums.logged.steps = try value("running_sums.log.steps", log?["steps"]?.intValue)
        sums.logged.loss = try value("running_sums.log.loss", log?["loss"]?.doubleValue)
        sums.logged.gradientNorm = try value(
            "running_sums.log.gradient_norm", log?["gradient_norm"]?.doubleValue)
        for part in try value("running_sums.log.parts", log?["parts"]?.arrayValue) {
            sums.logged.parts.append(
                (
                    name: try value("running_sums.log.parts.name", part["name"]?.stringValue),
                    value: try value("running_sums.log.parts.value", part["value"]?.doubleValue)
                ))
        }
        sums.saved.steps = try value("running_sums.checkpoint.steps", save?["steps"]?.intValue)
        sums.saved.loss = try value("running_sums.checkpoint.loss", save?["loss"]?.doubleValue)
        return sums
    }

    func folders() throws(CheckpointError) -> [String] {
        var folders: [String] = []
        for folder in try value("folders", json["folders"]?.arrayValue) {
            let name = try value("folders", folder.stringValue)
            guard name.isPlainFileName, !folders.contains(name) else {
                throw damaged("lists the folder '\(name)', which is a duplicate or not a plain name")
            }
            folders.append(name)
        }
        return folders
    }

    func files() throws(CheckpointError) -> [CheckpointFile] {
        var files: [CheckpointFile] = []
        var seen = Set<String>()
        for row in try value("files", json["files"]?.arrayValue) {
            let path = try value("files.path", row["path"]?.stringValue)
            // Accept only FOLDER/NAME, so that a manifest cannot refer to files outside the checkpoint.
            let parts = path.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
            guard parts.count == 2, parts.allSatisfy({ String(decoding: $0, as: UTF8.self).isPlainFileName })
            else { throw damaged("lists the file '\(path)', expected FOLDER/NAME inside the checkpoint") }
            guard seen.insert(path).inserted else { throw damaged("lists the file '\(path)' twice") }
            var file = CheckpointFile(
                path: path, bytes: try value("files.bytes", row["bytes"]?.intValue),
                crc32c: try checksum(row))
            guard file.bytes >= 0 else { throw damaged("'\(path)' has \(file.bytes) bytes") }
            if file.isWeights {
                for tensor in try value("files.tensors", row["tensors"]?.arrayValue) {
                    file.tensors.append(
                        TensorChecksum(
                            name: try value("files.tensors.name", tensor["name"]?.stringValue),
                            crc32c: try checksum(tensor)))
                }
            }
            files.append(file)
        }
        return files
    }

    private func checksum(_ row: JSONValue) throws(CheckpointError) -> String {
        let text = try value("crc32c", row["crc32c"]?.stringValue)
        return try value("crc32c", CRC32C(text: text, count: 0)?.text)
    }
}
