import FileFormats
import Foundation
import LDMModel
import Support
import TensorCore
import Testing
import TestSupport

/// The requirements on all readers for hostile input.
enum Hostile {
    /// The one-line error that `body` throws, or nil if it succeeds; any other kind of error fails the test.
    static func refusal(_ body: () throws -> Void) throws -> String? {
        do {
            try body()
            return nil
        } catch {
            let isKnown =
                error is SafetensorsError || error is ConfigError || error is ModelFolderError
                || error is JSONError
            guard isKnown else { throw error }
            let line = String(describing: error)
            #expect(line.utf8.count < 20_000)
            #expect(!line.unicodeScalars.contains { $0.properties.generalCategory == .control })
            return line
        }
    }

    /// Reads a configuration as the class that it names (or as a U-Net), and builds the parts of the model
    /// that need no memory.
    static func readConfig(_ node: ConfigNode) throws {
        switch node["_class_name"]?.value {
        case .string("AutoencoderKL"): _ = try AutoencoderKL(AutoencoderKLConfig(config: node))
        case .string("VQModel"): _ = try VQModel(VQModelConfig(config: node))
        case .string(let name) where SchedulerClass(rawValue: name) != nil:
            let config = try SchedulerConfig(config: node)
            for steps in [1, 3, config.numTrainTimesteps - 1] { _ = try config.sampler(steps: steps) }
        default: _ = try UNet2DModel(UNet2DConfig(config: node))
        }
    }
}

/// A small fuzzer that runs with every test: it mutates the fixtures pseudorandomly but deterministically.
/// The full fuzzer is in the folder Fuzzing.
@Suite struct HostileMutationTests {
    private static func bytes(_ name: String) throws -> [UInt8] {
        Array(try Data(contentsOf: URL(filePath: fixturePath(name))))
    }

    @Test func configurations() throws {
        let names = ["unet_ddpm", "unet_scale_shift", "kl_f2", "vq"].map {
            "cases/models/\($0)/config.json"
        }
        var sources = try names.map(Self.bytes)
        for schedulerClass in SchedulerClass.allCases {
            var config = SchedulerConfig(schedulerClass)
            config.numTrainTimesteps = 100
            sources.append(Array(try config.jsonText().utf8))
        }
        try run(6000, on: sources) { bytes in
            try Hostile.readConfig(ConfigNode(JSONValue(parsing: bytes[...]), source: "x"))
        }
    }

    @Test func indexes() throws {
        let folder = try ScratchFolder()
        try SafetensorsWriter.write(
            [("a", [2], [1, 2]), ("b", [1], [3])], to: folder.path + "/x.safetensors")
        try SafetensorsWriter.write([("c", [1], [3])], to: folder.path + "/y.safetensors")
        let text = #"{"weight_map": {"a": "x.safetensors", "b": "x.safetensors", "c": "y.safetensors"}}"#
        let path = folder.path + "/model.safetensors.index.json"
        try run(2000, on: [Array(text.utf8)]) { bytes in
            try Data(bytes).write(to: URL(filePath: path))
            for file in try WeightFiles(path: folder.path).files { #expect(file.path.hasPrefix(folder.path)) }
        }
    }

    @Test func weights() throws {
        let folder = try ScratchFolder()
        let path = folder.path + "/x.safetensors"
        try run(
            4000, on: [Self.bytes("safetensors/types.safetensors")], hasHeader: true
        ) { bytes in
            try Data(bytes).write(to: URL(filePath: path))
            let file = try SafetensorsFile(path: path)
            for name in file.names {
                let info = try file.info(of: name)
                if info.dtype.isFloatingPoint {
                    #expect(try file.floats(of: name).count == info.count)
                } else {
                    _ = try file.withBytes(of: name) { $0.reduce(UInt8(0), ^) }
                }
            }
            let store = ParameterStore()
            _ = store.declare("matrix", [4, 3, 2], .zeros)
            let misfit = try Hostile.refusal { try ModelFolder(folder.path).loadWeights(into: store) }
            #expect(misfit != nil)
        }
    }

    /// Reads mutants of the sources. Some must be accepted and most rejected; otherwise the mutations are not
    /// useful.
    private func run(
        _ count: Int, on sources: [[UInt8]], hasHeader: Bool = false, _ read: ([UInt8]) throws -> Void
    ) throws {
        var mutator = Mutator()
        var refused = 0
        for _ in 0..<count {
            var bytes = sources[mutator.below(sources.count)]
            for _ in 0...mutator.below(3) {
                if hasHeader, mutator.below(10) > 0 {
                    mutator.changeHeader(&bytes)
                } else {
                    mutator.change(&bytes)
                }
            }
            if try Hostile.refusal({ try read(bytes) }) != nil { refused += 1 }
        }
        #expect(refused > count / 2 && refused < count, "\(refused) of \(count) were refused")
    }
}

/// Deterministic pseudorandom changes to bytes that are mostly JSON.
private struct Mutator {
    private var random = SplitMix(state: 2024)

    /// Values that tend to break readers: integer and floating-point limits, other types, broken text.
    private static let pieces: [[UInt8]] =
        [
            "0", "-1", "1", "2", "3", "64", "65537", "4294967296", "9223372036854775807",
            "-9223372036854775808",
            "18446744073709551616", "1e308", "1e-308", "-0", "0.5", "null", "true", "false", "{}", "[]",
            "[0,0]",
            "\"\"", "\"a\"", "\"F16\"", "\"BOOL\"", "\"F8_E4M3\"", "\"x.safetensors\"", "\"..\"",
            "\"/\u{301}\"",
            "\"\\u0000\"", "\"\\ud800\"", "\"\\n\"", "{", "}", "[", "]", ",", ":", "\"", "\\",
        ].map { Array($0.utf8) } + [[0xFF], [0xCC, 0x81], [0xED, 0xA0, 0x80], [0]]

    mutating func below(_ limit: Int) -> Int { Int.random(in: 0..<limit, using: &random) }

    mutating func change(_ bytes: inout [UInt8]) {
        if bytes.isEmpty { bytes = [0x7B] }
        let place = below(bytes.count)
        let piece = Self.pieces[below(Self.pieces.count)]
        switch below(8) {
        case 0: bytes[place] ^= 1 << UInt8(below(8))
        case 1: bytes.insert(contentsOf: piece, at: place)
        case 2: bytes.removeSubrange(place..<min(bytes.count, place + 1 + below(16)))
        case 3: bytes.insert(contentsOf: bytes[place..<min(bytes.count, place + 1 + below(64))], at: place)
        case 4: bytes.removeSubrange(place...)
        default:
            // Replaces a whole value by another.
            let isEnd: (UInt8) -> Bool = { [0x2C, 0x3A, 0x5B, 0x5D, 0x7B, 0x7D, 0x0A, 0x20].contains($0) }
            let start = bytes[..<place].lastIndex(where: isEnd).map { $0 + 1 } ?? 0
            bytes.replaceSubrange(
                start..<(bytes[place...].firstIndex(where: isEnd) ?? bytes.count), with: piece)
        }
    }

    /// Changes a safetensors header and updates its length.
    mutating func changeHeader(_ bytes: inout [UInt8]) {
        guard bytes.count >= 8 else { return change(&bytes) }
        let length = bytes[..<8].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        guard length <= UInt64(bytes.count - 8) else { return change(&bytes) }
        var header = Array(bytes[8..<8 + Int(length)])
        change(&header)
        let prefix = withUnsafeBytes(of: UInt64(header.count).littleEndian) { Array($0) }
        bytes.replaceSubrange(0..<8 + Int(length), with: prefix + header)
    }
}

/// Vigna's splitmix64: small, and deterministic on all platforms.
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
