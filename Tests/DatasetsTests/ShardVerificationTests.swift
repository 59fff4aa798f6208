import Checkpointing
import Datasets
import Foundation
import Imaging
import Support
import Testing
import TestSupport

/// Prepared folders with modified bytes, and manifests with false values.
@Suite struct ShardVerificationTests {
    /// Two shards of pixels.
    private func prepared(_ scratch: ScratchFolder) throws -> String {
        let work = options("synthetic-faces:16", scratch.file("out"))
        try prepareAlone(work)
        return work.output
    }

    private func flipByte(_ path: String, at offset: Int) throws {
        var data = try bytes(path)
        data[offset] ^= 0x10
        try data.write(to: URL(fileURLWithPath: path))
    }

    @Test("a flipped bit in a shard is detected before its first sample is used")
    func flippedBit() throws {
        let scratch = try ScratchFolder()
        let folder = try prepared(scratch)
        let shard = "\(folder)/shard-00001.safetensors"
        let size = try bytes(shard).count
        try flipByte(shard, at: size - 5)
        // The header and the first shard are intact, so the folder can be opened.
        let dataset = try PixelDataset(PreparedFolder(folder))
        _ = try dataset.sample(0, key: firstKey)
        let message = datasetError(.damaged) { _ = try dataset.sample(12, key: firstKey) }
        #expect(message.contains("\(shard): CRC-32C is ") && message.contains("expected"))
        #expect(message.contains("disttrain prepare"))
        // One damaged shard also makes the others unusable.
        #expect(!datasetError { _ = try dataset.sample(0, key: firstKey) }.isEmpty)
        // The remedy in the message repairs the folder.
        try prepareAlone(options("synthetic-faces:16", folder))
        _ = try PixelDataset(PreparedFolder(folder)).sample(12, key: firstKey)
    }

    @Test("background verification reports the verified shards", .timeLimit(.minutes(1)))
    func background() async throws {
        let scratch = try ScratchFolder()
        let folder = try PreparedFolder(try prepared(scratch))
        let line = await withCheckedContinuation { continuation in
            folder.verifyInBackground { continuation.resume(returning: $0) }
        }
        #expect(line.hasPrefix("Verified 2 shards of \(folder.path) against their checksums: "))
        #expect(line.hasSuffix("GB/s"))
    }

    @Test("a shard that is truncated or replaced while it is open is an error, not a crash")
    func changedWhileOpen() throws {
        let scratch = try ScratchFolder()
        let path = try prepared(scratch)
        let dataset = try PixelDataset(PreparedFolder(path))
        _ = try dataset.sample(0, key: firstKey)
        try #require(truncate("\(path)/shard-00000.safetensors", 200) == 0)
        let message = datasetError(.damaged) { _ = try dataset.sample(7, key: firstKey) }
        #expect(message.contains("shard-00000.safetensors: is 200 bytes, expected at least"))
        // This shard has not been opened for reading yet.
        try FileManager.default.removeItem(atPath: "\(path)/shard-00001.safetensors")
        #expect(
            datasetError { _ = try dataset.sample(12, key: firstKey) }.contains("shard-00001.safetensors"))
    }

    @Test(
        "hostile manifests are refused with one line",
        arguments: [
            ("\"shard-00000.safetensors\"", "\"../../x\"", "the name of a file in the same folder"),
            ("\"shard-00000.safetensors\"", "\"..\"", "the name of a file in the same folder"),
            ("\"shard-00000.safetensors\"", "\"/etc/passwd\"", "the name of a file in the same folder"),
            // A slash with a combining accent is one `Character`, but still a path separator.
            ("\"shard-00000.safetensors\"", "\"a/\u{301}b\"", "the name of a file in the same folder"),
            ("\"shard-00000.safetensors\"", "\"\"", "the name of a file in the same folder"),
            ("\"shard-00001.safetensors\"", "\"shard-00000.safetensors\"", "each named once"),
            ("\"count\": 8", "\"count\": 9223372036854775807", "impossible count or size"),
            ("\"bytes\": ", "\"bytes\": 9999999999", "impossible count or size"),
            ("\"crc32\": \"", "\"crc32\": \"xyz", "a checksum in hexadecimal digits"),
            ("\"items\": 16", "\"items\": 9223372036854775807", "are out of range"),
            ("\"crc32c\": \"", "\"crc32c\": \"1234567890", "a checksum in hexadecimal digits"),
            ("\"height\": 16", "\"height\": 4611686018427387904", "contradict"),
            ("\"channels\": 3", "\"channels\": 1000000000", "contradict"),
        ])
    func hostileManifest(found: String, put: String, expected: String) throws {
        let scratch = try ScratchFolder()
        let folder = try prepared(scratch)
        let manifest = "\(folder)/manifest.json"
        let text = String(decoding: try bytes(manifest), as: UTF8.self)
        let range = try #require(text.range(of: found))
        try text.replacingCharacters(in: range, with: put)
            .write(toFile: manifest, atomically: true, encoding: .utf8)
        let message = datasetError(.damaged) { _ = try PreparedFolder(folder) }
        #expect(message.contains(expected), "\(message)")
    }

    @Test("a pipe instead of a manifest does not block", .timeLimit(.minutes(1)))
    func pipe() throws {
        let scratch = try ScratchFolder()
        let folder = try prepared(scratch)
        try FileManager.default.removeItem(atPath: "\(folder)/manifest.json")
        mkfifo("\(folder)/manifest.json", 0o600)
        #expect(datasetError { _ = try PreparedFolder(folder) }.contains("is a pipe"))
    }

    // MARK: Fingerprints

    @Test("a fingerprint covers every byte of every item")
    func everyByte() throws {
        let scratch = try ScratchFolder()
        let folder = try scratch.makeFolder("faces")
        // More than the 64 items that earlier versions sampled.
        try writeFaces(100, to: folder, size: 8)
        let before = try openImageSource(folder)
        let (fingerprint, earlier) = (before.fingerprint, before.sampledFingerprint)
        #expect(fingerprint.hasPrefix("v2-") && earlier.count == 16)
        // Item 2 is not among the 64 sampled of 100.
        let size = try bytes("\(folder)/002.png").count
        try flipByte("\(folder)/002.png", at: size - 20)
        let after = try openImageSource(folder)
        #expect(after.sampledFingerprint == earlier && after.fingerprint != fingerprint)
        // prepare does not continue in a folder made from other images.
        let other = try scratch.makeFolder("other")
        try writeFaces(100, to: other, size: 8)
        let work = options(other, scratch.file("out"), size: 8)
        try prepareAlone(work)
        try patternImage(width: 8, height: 8).write(to: "\(other)/001.png")
        #expect(datasetError(.mismatch) { try prepareAlone(work) }.contains("source content"))
    }

    @Test("a folder begun by an earlier version is completed with its fingerprint")
    func earlierPreparedFolder() throws {
        let scratch = try ScratchFolder()
        let faces = try scratch.makeFolder("faces")
        try writeFaces(16, to: faces)
        let work = options(faces, scratch.file("out"))
        try prepareAlone(work)
        let source = try openImageSource(faces)
        // The content that the earlier version would have written.
        for name in ["manifest.json", "progress/shard-00000.json", "progress/shard-00001.json"] {
            let path = scratch.file("out/\(name)")
            let text = String(decoding: try bytes(path), as: UTF8.self)
            #expect(text.contains(source.fingerprint))
            try text.replacingOccurrences(of: source.fingerprint, with: source.sampledFingerprint)
                .write(toFile: path, atomically: true, encoding: .utf8)
        }
        let fingerprint = try PreparedFolder(work.output).fingerprint
        let summary = try prepareAlone(work)
        #expect(summary.reusedShards == 2)
        #expect(summary.manifest.job.sourceFingerprint == source.sampledFingerprint)
        #expect(try PreparedFolder(work.output).fingerprint == fingerprint)
    }

    @Test("a checkpoint with an earlier fingerprint resumes on the same images and on no others")
    func earlierCheckpoint() throws {
        let scratch = try ScratchFolder()
        let faces = try scratch.makeFolder("faces")
        try writeFaces(9, to: faces)
        func identity(_ dataset: any TrainingDataset, _ fingerprint: String) -> RunIdentity {
            RunIdentity(
                name: "a", seed: 0, configuration: "", modelConfig: "{}", datasetFingerprint: fingerprint,
                earlierDatasetFingerprint: dataset.earlierFingerprint, programVersion: "0")
        }
        let dataset = ImageDataset(try openImageSource(faces), transform: ImageTransform(size: 16))
        // The fingerprint of version 0.1 for these images.
        let source = try openImageSource(faces)
        let earlier = earlierImageFingerprint(source.sampledFingerprint, size: 16, count: 9)
        let now = identity(dataset, dataset.fingerprint)
        #expect(
            try ConfigurationChanges(from: identity(dataset, earlier), to: now).check(
                AllowedChanges.none, of: "x") == [])
        #expect(throws: RunError.self) {
            try ConfigurationChanges(from: identity(dataset, "0123456789abcdef"), to: now).check(
                AllowedChanges.none, of: "x")
        }
        try patternImage().write(to: "\(faces)/000.png")
        let changed = ImageDataset(try openImageSource(faces), transform: ImageTransform(size: 16))
        #expect(throws: RunError.self) {
            try ConfigurationChanges(
                from: identity(dataset, earlier), to: identity(changed, changed.fingerprint)
            )
            .check(AllowedChanges.none, of: "x")
        }
    }
}

/// The fingerprint that version 0.1 computed from a source's fingerprint, the transform and the count: an
/// independent implementation of FNV-1a over words.
private func earlierImageFingerprint(_ source: String, size: Int, count: Int) -> String {
    var state: UInt64 = 0xCBF2_9CE4_8422_2325
    func add(_ word: UInt64) {
        state = (state ^ word) &* 0x0000_0100_0000_01B3
        state ^= state >> 32
    }
    for text in [source, ImageTransform(size: size).description, String(count)] {
        let bytes = Array(text.utf8)
        add(UInt64(bytes.count))
        let words = bytes.count / 8
        for word in 0..<words {
            add((0..<8).reduce(0) { $0 | UInt64(bytes[8 * word + $1]) << (8 * UInt64($1)) })
        }
        add(bytes[(8 * words)...].reduce(0) { $0 << 8 | UInt64($1) })
    }
    let digits = String(state, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
}
