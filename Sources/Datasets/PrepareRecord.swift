import CZlib
import Foundation
import Imaging
import Support

/// The record of a finished shard, in `progress/shard-00000.json`. A restart skips shards with a record, and
/// the manifest is assembled from all records.
struct PrepareRecord: Equatable {
    static let folderName = "progress"

    var job: PrepareJob
    /// Number of samples in the shard, its size in bytes and its CRC-32.
    var count: Int
    var bytes: Int
    var crc32: UInt32
    /// nil in records of earlier versions.
    var crc32c: UInt32?
    var skipped: [PreparedManifest.Skipped]
    var statistics: LatentStatistics

    /// The record of a shard; nil if the shard is unfinished or the record cannot be parsed.
    static func read(folder: String, shard: Int) -> PrepareRecord? {
        read(path(folder, shard))
    }

    /// The record in a file; nil if the file is missing or cannot be parsed.
    static func read(_ file: String) -> PrepareRecord? {
        guard let bytes = try? readWholeFile(file, limit: PreparedManifest.Limits.fileBytes) else {
            return nil
        }
        return try? PrepareRecord(PreparedManifest.parsed(bytes, file: file), file: file)
    }

    func write(folder: String, shard: Int) throws {
        try AtomicFile.write(Array(json.text(pretty: true).utf8), to: Self.path(folder, shard))
    }

    /// Whether the described shard exists and its size and checksum match.
    func matchesFile(folder: String, shard: Int) -> Bool {
        guard let found = try? fileChecksum("\(folder)/\(PrepareJob.shardName(shard))") else { return false }
        return found.bytes == bytes && found.crc32 == crc32 && (crc32c == nil || found.crc32c == crc32c)
    }

    private static func path(_ folder: String, _ shard: Int) -> String {
        "\(folder)/\(folderName)/\(PrepareJob.recordName(shard))"
    }

    private var json: JSONValue {
        var record: JSONObject = [
            "job": job.json,
            "count": .integer(count),
            "bytes": .integer(bytes),
            "crc32": .string(String(crc32, radix: 16)),
            "skipped": .array(skipped.map(\.json)),
            "sums": statistics.sums,
        ]
        if let crc32c { record["crc32c"] = .string(String(crc32c, radix: 16)) }
        return .object(record)
    }

    private init(_ json: JSONValue, file: String) throws(DatasetError) {
        let fields = JSONFields(json, file: file)
        job = try PrepareJob(json: fields.object("job").value, in: file)
        count = try fields.int("count")
        bytes = try fields.int("bytes")
        crc32 = try fields.checksum("crc32")
        crc32c = try fields.optionalChecksum("crc32c")
        skipped = try PreparedManifest.Skipped.list(fields)
        statistics = try LatentStatistics(sums: fields.object("sums"))
    }

    init(
        job: PrepareJob, count: Int, bytes: Int, crc32: UInt32, crc32c: UInt32?,
        skipped: [PreparedManifest.Skipped], statistics: LatentStatistics
    ) {
        (self.job, self.count, self.bytes, self.crc32) = (job, count, bytes, crc32)
        (self.crc32c, self.skipped, self.statistics) = (crc32c, skipped, statistics)
    }
}

/// Size, CRC-32 and CRC-32C of a file, read in pieces.
func fileChecksum(_ path: String) throws(ImageError) -> (bytes: Int, crc32: UInt32, crc32c: UInt32) {
    let file = try ReadOnlyFile(path)
    var checksum = crc32_z(0, nil, 0)
    var fast = CRC32C()
    try file.readPieces(of: 0..<file.size) {
        checksum = crc32_z(checksum, $0.baseAddress?.assumingMemoryBound(to: UInt8.self), $0.count)
        fast.update($0)
    }
    return (file.size, UInt32(truncatingIfNeeded: checksum), fast.value)
}
