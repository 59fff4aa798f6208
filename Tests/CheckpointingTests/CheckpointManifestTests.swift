import Checkpointing
import Foundation
import Support
import Testing
import TestSupport

/// Changes the text of a checkpoint's manifest and updates its checksum, to simulate manipulation rather than
/// damage.
func rewriteManifest(of checkpoint: String, _ change: (String) -> String) throws {
    let path = "\(checkpoint)/manifest.json"
    let text = try String(contentsOfFile: path, encoding: .utf8)
    let parts = text.components(separatedBy: ",\n  \"manifest_crc32c\"")
    #expect(parts.count == 2)
    let body = change(parts[0])
    let sum = CRC32C.of(Array(body.utf8)).text
    try Data("\(body),\n  \"manifest_crc32c\": \"\(sum)\"\n}\n".utf8).write(to: URL(fileURLWithPath: path))
}

/// The same, replacing a text that must be present.
func rewriteManifest(of checkpoint: String, _ old: String, with new: String) throws {
    try rewriteManifest(of: checkpoint) { text in
        #expect(text.contains(old), "\(old)")
        guard let range = text.range(of: old) else { return text }
        return text.replacingCharacters(in: range, with: new)
    }
}

@Suite struct CheckpointManifestTests {
    private let shard = "diffusion_pytorch_model-00001-of-00002.safetensors"

    private func checkpoint(_ scratch: ScratchFolder, step: Int = 30) throws -> String {
        try saveCheckpoint(
            CheckpointState(seed: UInt64(step)), step: step, in: CheckpointFolder(scratch.path), ranks: 2)
    }

    @Test func everyTensorHasItsChecksum() throws {
        let scratch = try ScratchFolder()
        let state = CheckpointState(seed: 30)
        let manifest = try Checkpoint(opening: try checkpoint(scratch)).manifest
        var sums = 0
        for (buffer, folder) in zip(state.buffers, manifest.folders) {
            for file in manifest.files where file.folder == folder {
                #expect(file.isWeights == !file.tensors.isEmpty)
                for tensor in file.tensors {
                    let entry = try #require(state.table.entries.first { $0.name == tensor.name })
                    var sum = CRC32C()
                    sum.update(
                        UnsafeRawBufferPointer(
                            UnsafeBufferPointer(start: buffer.values + entry.offset, count: entry.count)))
                    #expect(tensor.crc32c == sum.text)
                    sums += 1
                }
            }
        }
        #expect(sums == 4 * state.table.entries.count)
    }

    @Test func theMetricComesBack() throws {
        let scratch = try ScratchFolder()
        let state = CheckpointState(seed: 1)
        let writer = try checkpointWriter(CheckpointFolder(scratch.path), state.table)
        for (step, value) in [(1, nil), (2, 0.1), (3, 1e-300), (4, 5)] as [(Int, Double?)] {
            var training = state.state(step: step)
            training.metric = value.map { CheckpointMetric(name: "loss", value: $0) }
            #expect(try Checkpoint(opening: writer.save(training)).manifest.metric == training.metric)
        }
    }

    @Test(arguments: [
        ("unet/../x", "expected FOLDER/NAME"), ("/etc/passwd", "expected FOLDER/NAME"),
        ("../x/y", "expected"),
        ("unet", "expected FOLDER/NAME"), ("unet/a/b", "expected FOLDER/NAME"), ("./config.json", "expected"),
        ("unet//config.json", "expected FOLDER/NAME"), ("other/config.json", "in none of its folders"),
        ("exp_avg/config.json", "twice"), ("unet/..", "expected FOLDER/NAME"), ("", "expected FOLDER/NAME"),
        ("unet/a\\u0000b", "expected FOLDER/NAME"),
    ])
    func aPathThatLeadsElsewhereIsRefused(path: String, word: String) throws {
        let scratch = try ScratchFolder()
        let checkpoint = try checkpoint(scratch)
        try rewriteManifest(of: checkpoint, "\"unet/config.json\"", with: "\"\(path)\"")
        let error = #expect(throws: CheckpointError.self) { try Checkpoint(opening: checkpoint) }
        #expect(error?.kind == .damaged)
        #expect(error?.message.contains(word) == true, "\(error?.message ?? "")")
    }

    @Test(arguments: [
        ("\"format_version\": 2", "\"format_version\": 3", "has format version 3, expected 2"),
        ("\"format_version\": 2", "\"format_version\": 1", "has format version 1, expected 2"),
        ("\"format_version\": 2", "\"format_version\": \"2\"", "is not a checkpoint manifest"),
        ("disttrain checkpoint", "something else", "is not a checkpoint manifest"),
        ("\"step\": 30", "\"step\": -1", "no valid 'step'"),
        ("\"step\": 30", "\"step\": 20", "has step 20 in its manifest, but step 30 in its name"),
        ("\"step\": 30", "\"step\": 99999999999999999999", "no valid 'step'"),
        ("\"seed\": \"", "\"seed\": \"-", "no valid 'seed'"),
        ("\"metric\": null", "\"metric\": 3", "no valid 'metric.name'"),
        ("\"folders\": [\"unet\"", "\"folders\": [\"..\"", "not a plain name"),
        ("\"folders\": [\"unet\"", "\"folders\": [\"exp_avg\"", "is a duplicate"),
        ("\"model_folder\": \"unet\"", "\"model_folder\": \"vae\"", "does not list the model's folder 'vae'"),
        ("\"offset\": 0", "\"offset\": 9", "no valid 'parameters'"),
        ("\"offset\": 0", "\"offset\": -16", "no valid 'parameters'"),
        ("[8, 3, 3, 3]", "[8, 3, 3, 4]", "no valid 'parameters'"),
        ("[3, 32, 1, 1]", "[3, 32, 1, 2]", "has no room for"),
        ("[3, 32, 1, 1]", "[4611686018427387904, 4]", "no valid 'parameters'"),
        ("[3, 32, 1, 1]", "[72057594037927936, 8]", "no valid 'parameters'"),
        ("[3, 32, 1, 1]", "[-3, -32]", "no valid 'parameters'"),
        ("\"name\": \"mid.bias\"", "\"name\": \"mid.weight\"", "no valid 'parameters'"),
        ("\"crc32c\": \"", "\"crc32c\": \"+", "no valid 'crc32c'"),
        ("\"crc32c\": \"", "\"crc32c\": \"0", "no valid 'crc32c'"),
        ("\"bytes\": ", "\"bytes\": -", "bytes"),
        ("\"bytes\": ", "\"bytes\": 9", "bytes, expected 9"),
        ("\"tensors\": [", "\"tensors\": null, \"more\": [", "no valid 'files.tensors'"),
    ])
    func whatMakesNoSenseIsRefused(old: String, new: String, word: String) throws {
        let scratch = try ScratchFolder()
        let checkpoint = try checkpoint(scratch)
        try rewriteManifest(of: checkpoint, old, with: new)
        let error = #expect(throws: CheckpointError.self) { try Checkpoint(opening: checkpoint) }
        #expect(error?.message.contains(word) == true, "\(error?.message ?? "")")
        #expect(error?.kind == (word.contains("format version") ? .incompatible : .damaged))
    }

    @Test func aTensorInTwoFilesOrInNoneIsRefused() throws {
        for (old, new, word) in [
            ("mid.weight", "mid.bias", "holds 'mid.bias' twice"),
            ("mid.weight", "x", "is not a parameter of the model"),
        ] {
            let scratch = try ScratchFolder()
            let checkpoint = try checkpoint(scratch)
            // Change the last occurrence, which is in the table of a file.
            try rewriteManifest(of: checkpoint) { text in
                guard let range = text.range(of: "\"\(old)\"", options: .backwards) else { return text }
                return text.replacingCharacters(in: range, with: "\"\(new)\"")
            }
            let error = #expect(throws: CheckpointError.self) { try Checkpoint(opening: checkpoint) }
            #expect(error?.message.contains(word) == true, "\(error?.message ?? "")")
        }
        let scratch = try ScratchFolder()
        let checkpoint = try checkpoint(scratch)
        try rewriteManifest(of: checkpoint, "unet/\(shard)", with: "unet/other.bin")
        let error = #expect(throws: CheckpointError.self) { try Checkpoint(opening: checkpoint) }
        #expect(error?.message.contains("is in none of its files") == true, "\(error?.message ?? "")")
    }

    /// Manifests with random changes and a valid checksum may be rejected or accepted, but must not crash.
    @Test func mutatedManifestsNeverCrash() throws {
        let scratch = try ScratchFolder()
        let checkpoint = try checkpoint(scratch)
        let path = "\(checkpoint)/manifest.json"
        let original = try String(contentsOfFile: path, encoding: .utf8)
        let body = Array(original.utf8).prefix(original.utf8.count - 36)
        var random = SplitMix(state: 1)
        let pieces = ["0", "-1", "9223372036854775807", "null", "[]", "{}", "\"\"", "..", "/", "1e999", ","]
        var opened = 0
        for _ in 0..<2000 {
            var bytes = Array(body)
            for _ in 0..<Int.random(in: 1...3, using: &random) {
                let place = Int.random(in: 0..<bytes.count, using: &random)
                switch Int.random(in: 0..<4, using: &random) {
                case 0: bytes[place] = UInt8.random(in: 0...255, using: &random)
                case 1:
                    bytes.removeSubrange(
                        place..<min(bytes.count, place + Int.random(in: 1...40, using: &random)))
                case 2: bytes.insert(contentsOf: pieces.randomElement(using: &random)!.utf8, at: place)
                default: bytes.insert(contentsOf: bytes[place..<min(bytes.count, place + 30)], at: place)
                }
            }
            try rewriteManifest(of: checkpoint) { _ in String(decoding: bytes, as: UTF8.self) }
            if let checkpoint = try? Checkpoint(opening: checkpoint) {
                opened += 1
                try? checkpoint.verify()
            }
            try Data(original.utf8).write(to: URL(fileURLWithPath: path))
        }
        #expect((1..<1900).contains(opened), "\(opened) of 2000 were opened")
        try Checkpoint(opening: checkpoint).verify()
    }
}

/// Vigna's splitmix64, which is short and gives the same sequence on every platform.
private struct SplitMix: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}
