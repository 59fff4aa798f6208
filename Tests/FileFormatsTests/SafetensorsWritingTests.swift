import FileFormats
import Foundation
import Support
import Testing
import TestSupport

@Suite struct SafetensorsWritingTests {
    @Test func whatIsWrittenIsRead() throws {
        let scratch = try ScratchFolder()
        let path = scratch.file("out.safetensors")
        let values = (0..<12).map { Float($0) / 7 }
        try SafetensorsWriter.write(
            [("w", [3, 4], values), ("none", [0], []), ("b", [], [2.5])], to: path, metadata: ["format": "pt"]
        )
        let file = try SafetensorsFile(path: path)
        #expect(try file.floats(of: "w") == values)
        #expect(try file.floats(of: "none") == [])
        #expect(try file.floats(of: "b") == [2.5])
        #expect(file.metadata == ["format": "pt"])
        #expect(try scratch.list() == ["out.safetensors"])
        // The data starts on a cache line, so that mapped fp32 tensors can be used in place.
        #expect((file.fileSize - 13 * 4) % 64 == 0)
    }

    @Test(arguments: [SafetensorsDType.f16, .bf16, .f64])
    func narrowTypesAreRoundedToNearestEven(dtype: SafetensorsDType) throws {
        let scratch = try ScratchFolder()
        let path = scratch.file("out.safetensors")
        // 1 + 2^-8 and 1 + 3·2^-8 are ties in bf16, 1 + 2^-11 one in fp16.
        let values: [Float] = [1 + 0x1p-8, 1 + 0x3p-8, 1 + 0x1p-11, -0.1, 1e-30, .infinity, .nan]
        let many = (0..<300_000).map { Float($0 % 251) }
        try SafetensorsWriter.write([("a", [7], values), ("many", [300_000], many)], dtype: dtype, to: path)
        let file = try SafetensorsFile(path: path)
        let read = try file.floats(of: "a")
        switch dtype {
        case .bf16:
            let expected: [Float] = [1, 1.015625, 1, -0.10009765625]
            #expect(Array(read[..<4]) == expected)
        case .f16:
            let expected: [Float] = [1.00390625, 1.01171875, 1, -0.0999755859375]
            #expect(Array(read[..<4]) == expected)
        default: #expect(Array(read[..<4]) == Array(values[..<4]))
        }
        #expect(read[5] == .infinity)
        #expect(read[6].isNaN)
        #expect(try file.floats(of: "many") == many)
    }

    @Test func tensorsComeInPiecesAndInOrder() throws {
        let scratch = try ScratchFolder()
        let path = scratch.file("out.safetensors")
        var writer = try SafetensorsWriter(
            path: path,
            tensors: [
                .init("a", shape: [4]), .init("gap", shape: [0, 2]), .init("b", dtype: .i64, shape: [1]),
            ])
        try writer.append("a", floats: [1, 2, 3])
        try writer.append("a", floats: [4])
        let whole: [Int64] = [-7]
        try whole.withUnsafeBytes { try writer.append("b", bytes: $0) }
        #expect(!FileManager.default.fileExists(atPath: path))
        try writer.finish()
        let file = try SafetensorsFile(path: path)
        #expect(try file.floats(of: "a") == [1, 2, 3, 4])
        #expect(try file.integers(of: "b") == [-7])
    }

    @Test func anUnfinishedFileLeavesNothing() throws {
        let scratch = try ScratchFolder()
        let path = scratch.file("out.safetensors")
        try SafetensorsWriter.write([("old", [1], [1])], to: path)
        let error = try #require(throws: SafetensorsError.self) {
            var writer = try SafetensorsWriter(path: path, tensors: [.init("a", shape: [4])])
            try writer.append("a", floats: [1, 2])
            try writer.finish()
        }
        #expect(error.description == "\(path): tensor 'a' has 8 of 16 bytes, the file was not written")
        // The previous file is intact.
        #expect(try SafetensorsFile(path: path).names == ["old"])
        #expect(try scratch.list() == ["out.safetensors"])
    }

    @Test func misuseIsRefused() throws {
        let scratch = try ScratchFolder()
        let path = scratch.file("out.safetensors")
        func attempt(_ entries: [SafetensorsEntry], _ appended: [(String, [Float])]) throws
            -> SafetensorsError
        {
            try #require(throws: SafetensorsError.self) {
                var writer = try SafetensorsWriter(path: path, tensors: entries)
                for (name, values) in appended { try writer.append(name, floats: values) }
                try writer.finish()
            }
        }
        let two = [SafetensorsEntry("a", shape: [1]), .init("b", shape: [1])]
        #expect(try attempt(two, [("b", [1])]).description.contains("expected 'a'"))
        #expect(try attempt(two, [("a", [1, 2])]).description.contains("needs 4 bytes, 8 were appended"))
        #expect(
            try attempt(two, [("a", [1]), ("b", [1]), ("c", [1])]).description.contains(
                "expected nothing more"))
        #expect(try attempt([two[0], two[0]], []).kind == .tensor)
        #expect(try attempt([.init("a", shape: [-1])], []).kind == .tensor)
        #expect(try attempt([.init("a", dtype: .i64, shape: [1])], [("a", [1])]).kind == .mismatch)
        #expect(try attempt([.init("a", shape: [Int.max])], []).kind == .tensor)
        #expect(try scratch.list() == [])
        let nowhere = try #require(throws: SafetensorsError.self) {
            try SafetensorsWriter.write([("a", [1], [1])], to: scratch.file("no/such/x.safetensors"))
        }
        #expect(nowhere.description.contains("cannot be opened for writing: No such file or directory"))
    }

    @Test func aFullDiskIsReported() throws {
        // /dev/full answers every write with ENOSPC; the temporary name is a link to it.
        let scratch = try ScratchFolder()
        let path = scratch.file("out.safetensors")
        try FileManager.default.createSymbolicLink(
            atPath: AtomicFile.temporaryPath(for: path), withDestinationPath: "/dev/full")
        let error = try #require(throws: SafetensorsError.self) {
            try SafetensorsWriter.write([("a", [1], [1])], to: path)
        }
        #expect(error.description == "\(path): writing failed: No space left on device")
        #expect(try scratch.list() == [])
    }
}

@Suite struct SafetensorsShardTests {
    private func shards(in scratch: ScratchFolder) throws {
        try SafetensorsWriter.write(
            [("a", [2], [1, 2])], to: scratch.file("model-00001-of-00002.safetensors"))
        try SafetensorsWriter.write(
            [("b", [1], [3]), ("c", [1], [4])], to: scratch.file("model-00002-of-00002.safetensors"))
    }

    private let map = [
        "a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors",
        "c": "model-00002-of-00002.safetensors",
    ]

    @Test func shardsReadAsOne() throws {
        let scratch = try ScratchFolder()
        try shards(in: scratch)
        let indexPath = scratch.file("diffusion_pytorch_model.safetensors.index.json")
        try SafetensorsIndex(weightMap: map, totalSize: 16).write(to: indexPath)
        #expect(try SafetensorsIndex(contentsOf: indexPath).totalSize == 16)
        for path in [scratch.path, indexPath] {
            let weights = try WeightFiles(path: path)
            #expect(weights.names == ["a", "b", "c"])
            #expect(weights.files.count == 2)
            #expect(try weights.floats(of: "a") == [1, 2])
            #expect(try weights.floats(of: "c") == [4])
            #expect(throws: SafetensorsError.self) { try weights.floats(of: "d") }
        }
    }

    @Test func aFolderWithOneFileNeedsNoIndex() throws {
        let scratch = try ScratchFolder()
        try SafetensorsWriter.write([("a", [2], [1, 2])], to: scratch.file("anything.safetensors"))
        #expect(try WeightFiles(path: scratch.path).floats(of: "a") == [1, 2])
        try SafetensorsWriter.write([("a", [1], [9])], to: scratch.file("other.safetensors"))
        let several = try #require(throws: SafetensorsError.self) { try WeightFiles(path: scratch.path) }
        #expect(several.description.contains("choose one"))
        try SafetensorsWriter.write(
            [("a", [1], [5])], to: scratch.file("diffusion_pytorch_model.safetensors"))
        #expect(try WeightFiles(path: scratch.path).floats(of: "a") == [5])
    }

    @Test func anEmptyFolderIsRefused() throws {
        let scratch = try ScratchFolder()
        let empty = try #require(throws: SafetensorsError.self) { try WeightFiles(path: scratch.path) }
        #expect(empty.description.contains("holds no weights: no .safetensors, .bin"))
    }

    @Test func indexesThatDoNotFitAreRefused() throws {
        let scratch = try ScratchFolder()
        try shards(in: scratch)
        let indexPath = scratch.file("model.safetensors.index.json")
        func attempt(_ change: (inout [String: String]) -> Void) throws -> String {
            var changed = map
            change(&changed)
            try SafetensorsIndex(weightMap: changed, totalSize: nil).write(to: indexPath)
            return try #require(throws: SafetensorsError.self) { try WeightFiles(path: scratch.path) }
                .description
        }
        #expect(
            try attempt {
                $0["d"] = "model-00001-of-00002.safetensors"
                $0["c"] = nil
            }.hasSuffix(
                "does not match its shards in 2 tensors: c is in model-00002-of-00002.safetensors, but not in"
                    + " weight_map, d is not in model-00001-of-00002.safetensors"))
        #expect(try attempt { $0["c"] = "../x.safetensors" }.contains("same folder"))
        #expect(try attempt { $0["c"] = ".." }.contains("same folder"))
        // A slash with a combining accent is one `Character` in Swift, but still a separator in the file system.
        #expect(try attempt { $0["c"] = "../\u{301}.safetensors" }.contains("same folder"))
        #expect(try attempt { $0["c"] = "c.safetensors\0\u{301}" }.contains("same folder"))
        #expect(try attempt { $0["c"] = "lost.safetensors" }.contains("No such file"))
    }
}
