import Imaging
import Support

/// All inputs that determine the bytes of a prepared folder, independent of the number of ranks. It is stored
/// with each finished shard, so that a restart can verify that the shard belongs to the same job.
package struct PrepareJob: Equatable, Sendable {
    package enum Kind: String, Sendable {
        case latents
        case pixels
    }

    package var kind: Kind
    /// Content hash of the source; see ``SourceContent``.
    package var sourceFingerprint: String
    /// Number of items of the source to prepare, including damaged ones.
    package var itemCount: Int
    /// Side of a transformed image in pixels, and the description of the ``ImageTransform``.
    package var imageSize: Int
    package var transform: String
    /// Hash of the first stage's weights; nil for pixels.
    package var firstStageHash: String?
    /// Channels of a transformed image: 3, or 1 for luma.
    package var channels: Int
    /// Whether latents of the mirrored images are also stored.
    package var flip: Bool
    /// The compute precision of the first stage, fp32 or bf16; nil for pixels.
    package var precision: String?
    /// See ``ClassLabels/hash``.
    package var labelsHash: String?

    package init(
        kind: Kind, sourceFingerprint: String, itemCount: Int, imageSize: Int, transform: String,
        firstStageHash: String?, flip: Bool, precision: String?, channels: Int = 3
    ) {
        (self.kind, self.sourceFingerprint, self.itemCount) = (kind, sourceFingerprint, itemCount)
        (self.imageSize, self.transform) = (imageSize, transform)
        (self.firstStageHash, self.flip, self.precision) = (firstStageHash, flip, precision)
        self.channels = channels
    }

    /// Items per shard, except for the last one. At most 256; small enough that 256 images already make 32
    /// shards for as many ranks, and that a shard of pixels stays below 128 MiB. A multiple of 8, independent
    /// of the number of ranks.
    package var shardSize: Int {
        let most = kind == .pixels ? min(256, (128 << 20) / (channels * imageSize * imageSize)) : 256
        return max(8, min(most / 8 * 8, (itemCount + 511) / 512 * 8))
    }
    package var shardCount: Int { (itemCount + shardSize - 1) / shardSize }
    /// The source items of a shard.
    package func items(ofShard shard: Int) -> Range<Int> {
        shard * shardSize..<min(itemCount, (shard + 1) * shardSize)
    }

    /// `shard-00000.safetensors`
    static func shardName(_ shard: Int) -> String { "\(stem(shard)).safetensors" }
    /// `shard-00000.json`, in the folder `progress`.
    static func recordName(_ shard: Int) -> String { "\(stem(shard)).json" }
    private static func stem(_ shard: Int) -> String { "shard-" + padded(shard, digits: 5) }

    // MARK: JSON

    /// The keys and their display names, in order.
    private static let titles = [
        ("kind", "kind"), ("source_fingerprint", "source content"), ("items", "number of images"),
        ("size", "--size"), ("channels", "--channels"), ("transform", "transform"),
        ("first_stage_hash", "first stage"),
        ("flip", "--flip"),
        ("precision", "precision"), ("labels", "class labels"),
    ]

    /// Folders of earlier versions have no key `channels` and 3 channels; it is only written for 1.
    var json: JSONValue {
        var job: JSONObject = [
            "kind": .string(kind.rawValue),
            "source_fingerprint": .string(sourceFingerprint),
            "items": .integer(itemCount),
            "size": .integer(imageSize),
            "transform": .string(transform),
            "first_stage_hash": firstStageHash.map { .string($0) } ?? .null,
            "flip": .bool(flip),
            "precision": precision.map { .string($0) } ?? .null,
        ]
        // Absent where earlier versions stored the same labels.
        if let labelsHash { job["labels"] = .string(labelsHash) }
        if channels != 3 { job["channels"] = .integer(channels) }
        return .object(job)
    }

    init(json: JSONValue, in file: String) throws(DatasetError) {
        let fields = JSONFields(json, file: file)
        guard let kind = Kind(rawValue: try fields.string("kind")) else {
            throw DatasetError(
                .damaged, "\(file): kind is \(try fields.string("kind")), expected latents or pixels")
        }
        self.init(
            kind: kind, sourceFingerprint: try fields.string("source_fingerprint"),
            itemCount: try fields.int("items"), imageSize: try fields.int("size"),
            transform: try fields.string("transform"), firstStageHash: json["first_stage_hash"]?.stringValue,
            flip: try fields.bool("flip"),
            precision: json["precision"]?.stringValue,
            channels: json["channels"] == nil ? 3 : try fields.int("channels"))
        labelsHash = json["labels"]?.stringValue
        guard (1...PreparedManifest.Limits.samples).contains(itemCount),
            (1...Self.maximumImageSize).contains(imageSize), Image.channelCounts.contains(channels)
        else {
            throw DatasetError(
                .damaged,
                "\(file): \(itemCount) items of \(imageSize) pixels with \(channels) channels are out of range"
            )
        }
    }

    /// Limit on the side of prepared images, in pixels.
    package static let maximumImageSize = 8192

    /// Describes the differences for the user: `transform was "…", now "…"`.
    func difference(from earlier: PrepareJob) -> String {
        func show(_ value: JSONValue?) -> String { (try? value?.text()) ?? "absent" }
        func value(_ key: String, of job: PrepareJob) -> JSONValue? {
            key == "channels" ? .integer(job.channels) : job.json[key]
        }
        let parts = Self.titles.compactMap { key, title -> String? in
            let (now, before) = (value(key, of: self), value(key, of: earlier))
            return now == before ? nil : "\(title) was \(show(before)), now \(show(now))"
        }
        return parts.joined(separator: "; ")
    }
}

/// Fields of a JSON object. Errors name the file and the key.
struct JSONFields {
    let value: JSONValue
    let file: String

    init(_ value: JSONValue, file: String) {
        self.value = value
        self.file = file
    }

    func string(_ key: String) throws(DatasetError) -> String {
        guard let found = value[key]?.stringValue else { throw wrong(key, "a string") }
        return found
    }

    func int(_ key: String) throws(DatasetError) -> Int {
        guard let found = value[key]?.intValue, found >= 0 else {
            throw wrong(key, "a whole number of 0 or more")
        }
        return found
    }

    /// A checksum from hexadecimal digits.
    func checksum(_ key: String) throws(DatasetError) -> UInt32 {
        guard let found = UInt32(try string(key), radix: 16) else {
            throw wrong(key, "a checksum in hexadecimal digits")
        }
        return found
    }

    /// A checksum from hexadecimal digits; nil if the key is absent.
    func optionalChecksum(_ key: String) throws(DatasetError) -> UInt32? {
        value[key] == nil ? nil : try checksum(key)
    }

    func double(_ key: String) throws(DatasetError) -> Double {
        guard let found = value[key]?.doubleValue else { throw wrong(key, "a number") }
        return found
    }

    func bool(_ key: String) throws(DatasetError) -> Bool {
        guard let found = value[key]?.boolValue else { throw wrong(key, "true or false") }
        return found
    }

    func array(_ key: String) throws(DatasetError) -> [JSONValue] {
        guard let found = value[key]?.arrayValue else { throw wrong(key, "a list") }
        return found
    }

    func doubles(_ key: String) throws(DatasetError) -> [Double] {
        var numbers: [Double] = []
        for element in try array(key) {
            guard let number = element.doubleValue else { throw wrong(key, "a list of numbers") }
            numbers.append(number)
        }
        return numbers
    }

    func object(_ key: String) throws(DatasetError) -> JSONFields {
        guard let found = value[key], found.objectValue != nil else { throw wrong(key, "an object") }
        return JSONFields(found, file: file)
    }

    private func wrong(_ key: String, _ expected: String) -> DatasetError {
        let found = value[key]?.kind ?? "nothing"
        return DatasetError(
            .damaged, "\(file): \(key) is \(found), expected \(expected); prepare the folder again")
    }
}
