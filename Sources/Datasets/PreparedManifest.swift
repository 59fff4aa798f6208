import Foundation
import Support

/// `manifest.json` of a prepared folder: describes the samples and how they were made. It is written last, so
/// its presence marks the folder as complete.
package struct PreparedManifest: Sendable {
    package static let fileName = "manifest.json"
    package static let formatVersion = 1

    /// The first stage that made latents.
    package struct FirstStageRecord: Sendable, Equatable {
        /// The diffusers class: AutoencoderKL or VQModel.
        package var className: String
        /// Its config.json.
        package var config: JSONValue
        /// Hash of the tensors, independent of the file they came from.
        package var weightsHash: String
        package var scalingFactor: Double
        /// Subtracted before scaling; nil if the first stage has none.
        package var shiftFactor: Double?

        package init(
            className: String, config: JSONValue, weightsHash: String, scalingFactor: Double,
            shiftFactor: Double? = nil
        ) {
            (self.className, self.config, self.weightsHash) = (className, config, weightsHash)
            (self.scalingFactor, self.shiftFactor) = (scalingFactor, shiftFactor)
        }
    }

    package struct Shard: Sendable, Equatable {
        package var name: String
        package var count: Int
        package var bytes: Int
        /// CRC-32 of the whole file, as computed by zlib. Included in fingerprints.
        package var crc32: UInt32
        /// CRC-32C of the whole file, which is several times faster to compute; nil in folders of earlier
        /// versions.
        package var crc32c: UInt32?
    }

    /// A skipped image.
    package struct Skipped: Sendable, Equatable {
        package var item: String
        package var reason: String

        /// The reason for files that were not read; part of the format.
        package static let noImageName = "no image by its name"
    }

    package var job: PrepareJob
    /// The source as given by the user.
    package var sourceName: String
    /// Shape of a sample: [height, width, channels].
    package var height: Int
    package var width: Int
    package var channels: Int
    /// Whether latents have a log-variance, so that training draws from the posterior.
    package var hasPosterior: Bool
    package var firstStage: FirstStageRecord?
    package var statistics: LatentStatistics
    /// In the order of the labels; empty if there are no classes. See ``ClassLabels/names``.
    package var classNames: [String]
    package var shards: [Shard]
    package var skipped: [Skipped]

    /// Number of samples.
    package var count: Int { shards.reduce(0) { $0 + $1.count } }

    /// Limits on values in a manifest. Within them no product or sum overflows.
    enum Limits {
        /// Bytes of the file: 100 for each of a million shards.
        static let fileBytes = 100 << 20
        static let shards = 1 << 20
        static let samples = 1 << 40
        static let shardBytes = 1 << 42
        static let side = 1 << 16
        static let channels = 1 << 12
    }

    /// Whether a folder contains a manifest.
    package static func isIn(_ folder: String) -> Bool {
        FileManager.default.fileExists(atPath: "\(folder)/\(fileName)")
    }

    /// The manifest as JSON.
    package var json: JSONValue {
        var first: JSONValue = .null
        if let firstStage {
            first = [
                "class": .string(firstStage.className),
                "weights_hash": .string(firstStage.weightsHash),
                "scaling_factor": .number(firstStage.scalingFactor),
                "shift_factor": firstStage.shiftFactor.map { .number($0) } ?? .null,
                "config": firstStage.config,
            ]
        }
        return [
            "format_version": .integer(Self.formatVersion),
            "kind": .string(job.kind.rawValue),
            "count": .integer(count),
            "height": .integer(height),
            "width": .integer(width),
            "channels": .integer(channels),
            "posterior": .bool(hasPosterior),
            "flip": .bool(job.flip),
            "source": ["name": .string(sourceName), "fingerprint": .string(job.sourceFingerprint)],
            "transform": .string(job.transform),
            "measured": statistics.summary,
            "first_stage": first,
            "class_names": .array(classNames.map { .string($0) }),
            "job": job.json,
            "sums": statistics.sums,
            "shards": .array(
                shards.map {
                    var shard: JSONObject = [
                        "name": .string($0.name), "count": .integer($0.count), "bytes": .integer($0.bytes),
                        "crc32": .string(String($0.crc32, radix: 16)),
                    ]
                    if let crc32c = $0.crc32c { shard["crc32c"] = .string(String(crc32c, radix: 16)) }
                    return .object(shard)
                }),
            "skipped": .array(skipped.map(\.json)),
        ]
    }

    /// Reads `folder`/manifest.json.
    package static func read(folder: String) throws(DatasetError) -> PreparedManifest {
        let file = "\(folder)/\(fileName)"
        let bytes: [UInt8]
        do throws(FileError) {
            bytes = try readWholeFile(file, limit: Limits.fileBytes)
        } catch {
            guard error.code == ENOENT || error.code == ENOTDIR else {
                throw DatasetError(.inaccessible, error.description, code: error.code)
            }
            let exists = FileManager.default.fileExists(atPath: folder)
            throw DatasetError(
                .inaccessible,
                exists
                    ? "\(folder): no readable \(fileName): not a prepared folder, or `disttrain prepare` has not "
                        + "finished; run it again to continue where it stopped"
                    : "\(folder): no such folder; make it with `disttrain prepare SOURCE --output \(folder)`")
        }
        return try PreparedManifest(json: parsed(bytes, file: file), file: file)
    }

    init(json: JSONValue, file: String) throws(DatasetError) {
        let fields = JSONFields(json, file: file)
        let version = try fields.int("format_version")
        guard version == Self.formatVersion else {
            throw DatasetError(
                .mismatch,
                "\(file): format version \(version), this program reads \(Self.formatVersion); prepare it "
                    + "again"
            )
        }
        job = try PrepareJob(json: fields.object("job").value, in: file)
        sourceName = try fields.object("source").string("name")
        height = try fields.int("height")
        width = try fields.int("width")
        channels = try fields.int("channels")
        hasPosterior = try fields.bool("posterior")
        statistics = try LatentStatistics(sums: fields.object("sums"))
        classNames = try fields.array("class_names").compactMap(\.stringValue)
        skipped = try Skipped.list(fields)
        shards = []
        for element in try fields.array("shards") {
            shards.append(try Shard(JSONFields(element, file: file)))
        }
        guard shards.count <= Limits.shards, Set(shards.map(\.name)).count == shards.count else {
            throw DatasetError(
                .damaged,
                "\(file): \(shards.count) shards, expected at most \(Limits.shards), each named once; prepare the "
                    + "folder again")
        }
        if json["first_stage"]?.objectValue != nil {
            let first = try fields.object("first_stage")
            firstStage = FirstStageRecord(
                className: try first.string("class"), config: try first.object("config").value,
                weightsHash: try first.string("weights_hash"),
                scalingFactor: try first.double("scaling_factor"),
                shiftFactor: first.value["shift_factor"]?.doubleValue)
        }
        guard (1...Limits.side).contains(height), (1...Limits.side).contains(width),
            (1...Limits.channels).contains(channels), count > 0, statistics.channels == channels,
            count == (try fields.int("count")), (firstStage != nil) == (job.kind == .latents),
            job.kind == .latents || channels == job.channels
        else {
            throw DatasetError(
                .damaged, "\(file): its numbers contradict each other; prepare the folder again")
        }
    }

    init(
        job: PrepareJob, sourceName: String, height: Int, width: Int, channels: Int, hasPosterior: Bool,
        firstStage: FirstStageRecord?, statistics: LatentStatistics, classNames: [String], shards: [Shard],
        skipped: [Skipped]
    ) {
        (self.job, self.sourceName, self.height, self.width) = (job, sourceName, height, width)
        (self.channels, self.hasPosterior, self.firstStage) = (channels, hasPosterior, firstStage)
        (self.statistics, self.classNames) = (statistics, classNames)
        (self.shards, self.skipped) = (shards, skipped)
    }

    static func parsed(_ bytes: [UInt8], file: String) throws(DatasetError) -> JSONValue {
        do { return try JSONValue(parsing: bytes[...]) } catch {
            throw DatasetError(.damaged, "\(file): \(error); prepare the folder again")
        }
    }
}

extension PreparedManifest.Shard {
    /// - Throws: if the name is not a plain file name, or a number exceeds ``PreparedManifest/Limits``.
    fileprivate init(_ fields: JSONFields) throws(DatasetError) {
        let name = try fields.string("name")
        guard name.isPlainFileName, name.utf8.count <= 255 else {
            throw DatasetError(
                .damaged,
                "\(fields.file): a shard is named '\(name.prefix(100))', expected the name of a file in the same folder; "
                    + "the manifest was not written by disttrain; prepare the folder again")
        }
        let (count, bytes) = (try fields.int("count"), try fields.int("bytes"))
        guard count <= PreparedManifest.Limits.samples, bytes <= PreparedManifest.Limits.shardBytes
        else {
            throw DatasetError(
                .damaged,
                "\(fields.file): \(name) has an impossible count or size; prepare the folder again")
        }
        self.init(
            name: name, count: count, bytes: bytes, crc32: try fields.checksum("crc32"),
            crc32c: try fields.optionalChecksum("crc32c"))
    }
}

extension PreparedManifest.Skipped {
    var json: JSONValue { ["item": .string(item), "reason": .string(reason)] }

    /// The list under the key `skipped`.
    static func list(_ fields: JSONFields) throws(DatasetError) -> [Self] {
        var list: [Self] = []
        for element in try fields.array("skipped") {
            let entry = JSONFields(element, file: fields.file)
            list.append(Self(item: try entry.string("item"), reason: try entry.string("reason")))
        }
        return list
    }
}
