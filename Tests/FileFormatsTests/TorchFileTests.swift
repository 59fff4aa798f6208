import FileFormats
import Foundation
import Support
import Testing
import TestSupport

@Suite struct TorchFileTests {
    static func fixture(_ name: String) -> String { fixturePath("torch/\(name)") }

    /// The line that reports why a file is refused.
    static func refusal(_ path: String) throws -> String {
        let error = try #require(throws: SafetensorsError.self) { try WeightFiles(path: path) }
        #expect(error.exitStatus == ExitStatus.refused)
        return error.message
    }

    @Test func readsEveryTypeAndStride() throws {
        let file = try WeightFiles(path: Self.fixture("types.pt"))
        let reference = try WeightFiles(path: Self.fixture("types.safetensors"))
        #expect(file.names == reference.names && file.names.count == 16)
        for name in file.names {
            let (info, expected) = (try file.info(of: name), try reference.info(of: name))
            #expect(
                info.dtype == expected.dtype && info.shape == expected.shape && info.count == expected.count)
            if info.dtype.isFloatingPoint {
                #expect(try file.floats(of: name) == reference.floats(of: name), "\(name)")
            } else {
                #expect(throws: SafetensorsError.self) { try file.floats(of: name) }
            }
        }
        let missing = try #require(throws: SafetensorsError.self) { try file.floats(of: "f23") }
        #expect(missing.message.contains("did you mean"))
        var short = [Float](repeating: 0, count: 2)
        let mismatch = #expect(throws: SafetensorsError.self) {
            try short.withUnsafeMutableBufferPointer { try file.copyFloats(of: "f32", into: $0) }
        }
        #expect(mismatch?.message.contains("12 elements do not fit a buffer of 2") == true)
    }

    /// PyTorch Lightning nests the weights, and DistributedDataParallel prepends "module.".
    @Test func readsNestedWeights() throws {
        let file = try WeightFiles(path: Self.fixture("lightning.ckpt"))
        #expect(file.names == ["bias", "weight"])
        #expect(try file.info(of: "weight").shape == [1, 2])
    }

    @Test func findsFilesInFolders() throws {
        let scratch = try ScratchFolder()
        func copy(_ name: String, _ target: String) throws {
            try FileManager.default.copyItem(atPath: Self.fixture(name), toPath: scratch.file(target))
        }
        try copy("lightning.ckpt", "last.ckpt")
        #expect(try WeightFiles(path: scratch.path).names == ["bias", "weight"])
        try copy("types.pt", "other.pt")
        #expect(try Self.refusal(scratch.path).contains("holds several weight files (last.ckpt, other.pt)"))
        try copy("types.pt", "diffusion_pytorch_model.fp16.bin")
        #expect(try WeightFiles(path: scratch.path).names.count == 16)
        try copy("lightning.ckpt", "diffusion_pytorch_model.bin")
        #expect(try WeightFiles(path: scratch.path).names.count == 2)
        // Shards in both formats.
        try SafetensorsIndex(
            weightMap: ["weight": "last.ckpt", "bias": "last.ckpt"], totalSize: nil
        ).write(to: scratch.file("diffusion_pytorch_model.bin.index.json"))
        #expect(try WeightFiles(path: scratch.path).files[0].path.hasSuffix("last.ckpt"))
        try copy("types.safetensors", "any.safetensors")
        #expect(try WeightFiles(path: scratch.path).names.count == 2)
        try copy("types.safetensors", "model.safetensors")
        #expect(try WeightFiles(path: scratch.path).names.count == 16)
    }

    @Test func refusesOtherFilesOfTorchWithTheRemedy() throws {
        let legacy = try Self.refusal(Self.fixture("legacy.bin"))
        #expect(legacy.contains("PyTorch 1.6") && legacy.contains("torch.save(torch.load("))
        let module = try Self.refusal(Self.fixture("module.pt"))
        #expect(
            module.contains("requests 'torch.nn.modules.linear.Linear'") && module.contains("weights_only"))
        #expect(try Self.refusal(Self.fixture("list.pt")).contains("holds a list, expected a dictionary"))
        #expect(try Self.refusal(Self.fixture("expanded.pt")).contains("'wide' repeats elements"))
    }

    @Test func refusesDamagedFiles() throws {
        let scratch = try ScratchFolder()
        let whole = try readWholeFile(Self.fixture("types.pt"), limit: 1 << 20)
        let cut = try scratch.write("cut.pt", Array(whole.prefix(whole.count / 2)))
        #expect(try Self.refusal(cut).contains("no directory at its end"))
        #expect(try Self.refusal(try scratch.write("short.pt", [0x80])).contains("torch.save"))
        // A changed byte: an error in one line, or tensors within the file.
        let path = scratch.file("x.pt")
        for index in stride(from: 0, to: whole.count, by: 7) {
            var bytes = whole
            bytes[index] ^= 0x5F
            try Data(bytes).write(to: URL(fileURLWithPath: path))
            do {
                let file = try WeightFiles(path: path)
                for name in file.names where try file.info(of: name).dtype.isFloatingPoint {
                    _ = try file.floats(of: name)
                }
            } catch {
                #expect(!error.message.contains("\n"))
            }
        }
    }

    @Test func refusesOtherArchives() throws {
        let scratch = try ScratchFolder()
        try scratch.write("a.txt", "text")
        try scratch.run("python3", "-m", "zipfile", "-c", "other.bin", "a.txt")
        #expect(try Self.refusal(scratch.file("other.bin")).contains("without data.pkl"))
    }

    @Test func namesAPointerOfGitLFS() throws {
        let scratch = try ScratchFolder()
        let text = """
            version https://git-lfs.github.com/spec/v1
            oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393
            size 12345

            """
        for name in ["model.safetensors", "model.bin"] {
            let path = try scratch.write(name, text)
            let line = try Self.refusal(path)
            #expect(line.contains("is a Git LFS pointer, not the file of 12345 bytes itself"))
            #expect(line.hasSuffix("git -C \(scratch.path) lfs pull"))
        }
    }
}
