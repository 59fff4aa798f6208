import FileFormats
import Foundation
import LDMModel
import Support
import TensorCore
import Testing
import TestSupport

/// Files that must be rejected, created by the scripts in Fixtures/hostile and by the fuzzer.
@Suite struct HostileFilesTests {
    /// Fixtures/hostile/READER/KIND/NAME: KIND is the error that READER throws.
    struct Case: CustomTestStringConvertible, Sendable {
        let reader: String
        let kind: String
        let path: String
        var testDescription: String { path.split(separator: "/").suffix(3).joined(separator: "/") }

        static let all: [Case] = {
            let root = URL(filePath: fixturePath("hostile"))
            let names = FileManager.default.enumerator(atPath: root.path)?.compactMap { $0 as? String } ?? []
            return names.sorted().compactMap { name in
                let parts = name.split(separator: "/").map(String.init)
                guard parts.count == 3 else { return nil }
                return Case(reader: parts[0], kind: parts[1], path: root.appending(path: name).path)
            }
        }()
    }

    @Test("rejected with the expected error, in one line", .timeLimit(.minutes(1)), arguments: Case.all)
    func refused(file: Case) throws {
        var kind = "none"
        let line = try Hostile.refusal {
            do {
                switch file.reader {
                case "safetensors": _ = try SafetensorsFile(path: file.path)
                case "index": _ = try SafetensorsIndex(contentsOf: file.path)
                case "config": try Hostile.readConfig(ConfigNode(jsonFile: file.path))
                default: Issue.record("no reader for \(file.reader)")
                }
            } catch let error as SafetensorsError {
                kind = "\(error.kind)"
                throw error
            } catch let error as ConfigError {
                kind = "\(error.kind)"
                throw error
            }
        }
        #expect(kind == file.kind, "\(line ?? "was not refused")")
    }

    @Test func everyReaderHasCases() {
        #expect(Case.all.count > 100)
        #expect(Set(Case.all.map(\.reader)) == ["safetensors", "index", "config"])
    }

    @Test("a pipe instead of a file is rejected and does not block", .timeLimit(.minutes(1)))
    func pipes() throws {
        let folder = try ScratchFolder()
        for name in ["config.json", "model.safetensors"] { mkfifo(folder.path + "/" + name, 0o600) }
        let config = try Hostile.refusal { _ = try ModelFolder(folder.path).readModelConfig() }
        #expect(config?.hasSuffix("config.json: is a pipe, expected a regular file") == true)
        let weights = try Hostile.refusal { _ = try WeightFiles(path: folder.path) }
        #expect(weights?.hasSuffix("model.safetensors: is a pipe, expected a regular file") == true)
        try folder.write("model.safetensors.index.json", #"{"weight_map": {"a": "model.safetensors"}}"#)
        let shard = try Hostile.refusal { _ = try WeightFiles(path: folder.path) }
        #expect(shard?.hasSuffix("model.safetensors: is a pipe, expected a regular file") == true)
    }

    @Test("a name of a megabyte of combining marks is refused at once", .timeLimit(.minutes(1)))
    func marks() throws {
        let name = "a" + String(repeating: "\u{300}\u{323}", count: 250_000)
        let line = try Hostile.refusal { _ = try JSONValue(parsing: "{\"\(name)\": 1}") }
        #expect(line?.contains("combining marks") == true)
        // 30 are allowed.
        let few = "a" + String(repeating: "\u{300}\u{323}", count: 15)
        #expect(try JSONValue(parsing: "{\"\(few)\": 1}")[few] == 1)
    }

    @Test("an index of a million missing tensors is reported in one line", .timeLimit(.minutes(1)))
    func manyNames() throws {
        let folder = try ScratchFolder()
        try SafetensorsWriter.write([("layer.a", [1], [1])], to: folder.path + "/x.safetensors")
        let map = (0..<1_000_000).map { "\"layer.\($0)\":\"x.safetensors\"" }.joined(separator: ",")
        try folder.write("model.safetensors.index.json", "{\"weight_map\":{\(map)}}")
        let line = try Hostile.refusal { _ = try WeightFiles(path: folder.path) }
        #expect(line?.contains("does not match its shards in 1000001 tensors") == true)
    }

    @Test("hints do not grow with hostile names", .timeLimit(.minutes(1)))
    func hints() {
        let long = String(repeating: "ab", count: 500_000)
        #expect(nearestName(to: long + "c", among: [long, "b"]) == nil)
        let names = (0..<1_000_000).map { "down_blocks.0.resnets.\($0).conv1.weight" }
        #expect(nearestName(to: "down_blocks.0.resnets.7.conv1.weigth", among: names) == names[7])
    }

    @Test("a sparse file larger than the memory is rejected before memory is allocated")
    func moreThanMemory() throws {
        let folder = try ScratchFolder()
        let count = Int(ProcessInfo.processInfo.physicalMemory) / 4 + 1024
        let header = #"{"a":{"dtype":"F32","shape":[\#(count)],"data_offsets":[0,\#(count * 4)]}}"#
        let path = folder.path + "/model.safetensors"
        let bytes = withUnsafeBytes(of: UInt64(header.utf8.count).littleEndian) { Array($0) } + header.utf8
        try Data(bytes).write(to: URL(filePath: path))
        try #require(truncate(path, bytes.count + count * 4) == 0)
        let store = ParameterStore()
        _ = store.declare("a", [count], .zeros)
        let line = try Hostile.refusal { try ModelFolder(folder.path).loadWeights(into: store) }
        #expect(line?.contains("a model of \(count) parameters takes") == true)
        #expect(line?.hasPrefix(folder.path) == true)
    }

    @Test("the largest configurations do not overflow, and are rejected for their size")
    func largestConfigurations() throws {
        let levels = 16
        var unet = UNet2DConfig()
        unet.blockOutChannels = Array(repeating: 1 << 16, count: levels)
        unet.downBlockTypes = Array(repeating: .attention, count: levels)
        unet.upBlockTypes = Array(repeating: .attention, count: levels)
        unet.layersPerBlock = 64
        unet.timeEmbeddingDim = 1 << 18
        unet.resnetTimeScaleShift = .scaleShift
        unet.sampleSize = nil
        let model = try UNet2DModel(unet)
        #expect(model.store.count > 1 << 46)
        let line = try Hostile.refusal { try model.store.checkMemory() }
        #expect(line?.contains("choose a smaller model") == true)
        var coder = VQModelConfig()
        coder.blockOutChannels = unet.blockOutChannels
        coder.downBlockTypes = Array(repeating: .plain, count: levels)
        coder.upBlockTypes = Array(repeating: .plain, count: levels)
        coder.layersPerBlock = 64
        coder.numVQEmbeddings = 1 << 24
        coder.vqEmbedDim = 1 << 16
        #expect(try VQModel(coder).store.count > 1 << 42)
    }
}
