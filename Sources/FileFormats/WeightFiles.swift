import Foundation
import Support

/// The index of a sharded model, which maps each tensor to its file (`….safetensors.index.json`, `….bin.index.json`).
package struct SafetensorsIndex: Sendable, Equatable {
    /// The file of each tensor, as a name in the index's folder.
    package var weightMap: [String: String]
    /// Total size of all tensors in bytes.
    package var totalSize: Int?

    package init(weightMap: [String: String], totalSize: Int?) {
        (self.weightMap, self.totalSize) = (weightMap, totalSize)
    }

    /// Reads and validates an index. File names must be single path components, so that an index cannot refer
    /// to files outside its folder.
    package init(contentsOf path: String) throws(SafetensorsError) {
        let json: JSONValue
        do {
            json = try JSONValue(parsing: try readWholeFile(path, limit: 100 << 20)[...])
        } catch let error as FileError {
            throw SafetensorsError(error)
        } catch {
            throw SafetensorsError(.header, path, "\(error)")
        }
        guard let map = json["weight_map"]?.objectValue else {
            throw SafetensorsError(.header, path, "has no weight_map")
        }
        weightMap = [:]
        for (name, value) in map.members {
            guard let file = value.stringValue, file.isPlainFileName else {
                throw SafetensorsError(
                    .header, path, "weight_map '\(name)': expected the name of a file in the same folder")
            }
            weightMap[name] = file
        }
        totalSize = json["metadata"]?["total_size"]?.intValue
    }

    /// The file's text.
    package func text() throws(JSONError) -> String {
        var map = JSONObject()
        for name in weightMap.keys.sorted() { map[name] = weightMap[name].map { .string($0) } }
        let metadata: JSONValue = totalSize.map { ["total_size": .integer($0)] } ?? [:]
        let document: JSONValue = ["metadata": metadata, "weight_map": .object(map)]
        return try document.text(pretty: true) + "\n"
    }

    /// Writes the index, atomically.
    package func write(to path: String) throws(SafetensorsError) {
        do {
            try AtomicFile.write(Array(try text().utf8), to: path)
        } catch let error as FileError {
            throw SafetensorsError(error)
        } catch {
            throw SafetensorsError(.header, path, "\(error)")
        }
    }
}

/// A model's weights by name, from one file or from shards with an index, in safetensors or PyTorch's format.
package final class WeightFiles: NamedTensors {
    /// The file, index or folder that was opened.
    package let path: String
    /// The open files.
    package let files: [any NamedTensors]
    private let owner: [String: any NamedTensors]

    /// Base names of weight files in diffusers and transformers, tried in this order.
    package static let baseNames = ["diffusion_pytorch_model", "model", "pytorch_model"]

    /// Variants of a base name, tried in this order: full precision first, then the closest to it.
    static let variants = ["", ".fp32", ".fp16", ".bf16"]

    /// Extensions of files that PyTorch writes.
    package static let torchExtensions = ["bin", "pt", "pth", "ckpt"]

    /// Opens a file of weights, an index, or a folder. A folder must contain weights under a name from
    /// `baseNames`, plain or as a variant (`….fp16.safetensors`, `….safetensors.index.fp16.json`), or exactly
    /// one file or index under any name. Safetensors take precedence over PyTorch's format, as in diffusers.
    package init(path: String) throws(SafetensorsError) {
        self.path = path
        let file = try Self.locate(path)
        if !file.hasSuffix(".json") {
            let single = try Self.open(file)
            files = [single]
            owner = Dictionary(uniqueKeysWithValues: single.names.map { ($0, single) })
            return
        }
        let index = try SafetensorsIndex(contentsOf: file)
        let folder = (file as NSString).deletingLastPathComponent
        var opened: [String: any NamedTensors] = [:]
        for name in Set(index.weightMap.values).sorted() {
            opened[name] = try Self.open((folder as NSString).appendingPathComponent(name))
        }
        var wrong: [String] = []
        let held = opened.mapValues { Set($0.names) }
        for (tensor, name) in index.weightMap where held[name]?.contains(tensor) != true {
            wrong.append("\(tensor) is not in \(name)")
        }
        for (name, tensors) in held {
            wrong += tensors.filter { index.weightMap[$0] != name }.map {
                "\($0) is in \(name), but not in weight_map"
            }
        }
        if !wrong.isEmpty {
            throw SafetensorsError(
                .missing, file,
                "does not match its shards in \(wrong.count) tensors: \(shortList(wrong.sorted()))")
        }
        files = opened.keys.sorted().compactMap { opened[$0] }
        owner = index.weightMap.compactMapValues { opened[$0] }
    }

    /// All names, sorted.
    package var names: [String] { owner.keys.sorted() }

    /// Whether a tensor of this name exists.
    package func contains(_ name: String) -> Bool { owner[name] != nil }

    /// Type and shape of a tensor.
    package func info(of name: String) throws(SafetensorsError) -> SafetensorsInfo {
        try file(of: name).info(of: name)
    }

    package func copyFloats(
        of name: String, into destination: UnsafeMutableBufferPointer<Float>
    ) throws(SafetensorsError) {
        try file(of: name).copyFloats(of: name, into: destination)
    }

    private func file(of name: String) throws(SafetensorsError) -> any NamedTensors {
        if let file = owner[name] { return file }
        throw missing(name)
    }

    // MARK: Files

    /// Opens a file in the format that its first bytes show.
    private static func open(_ path: String) throws(SafetensorsError) -> any NamedTensors {
        let file: PositionedFile
        let start: [UInt8]
        do throws(FileError) {
            file = try PositionedFile(path)
            start = try file.read(at: 0, count: min(16, file.size))
        } catch {
            throw SafetensorsError(error)
        }
        if ZipFile.recognizes(start) { return try TorchFile(file) }
        try LargeFilePointer.check(file)
        // In a safetensors file, the last four of these bytes are zero.
        if start.count == 16, start[0] == 0x80, (2...5).contains(start[1]), start[4..<8] != [0, 0, 0, 0] {
            throw SafetensorsError(
                .header, path,
                "is a pickle in another format than that of PyTorch 1.6 and later; if you trust the file,"
                    + " convert it: python3 -c \"import torch; torch.save(torch.load('\(path)', 'cpu',"
                    + " weights_only=False), 'weights.ckpt')\"")
        }
        if torchExtensions.contains((path as NSString).pathExtension) {
            throw SafetensorsError(
                .header, path,
                "is not a zip archive, expected a file from torch.save; truncated, or a web page?")
        }
        return try SafetensorsFile(file)
    }

    private static func locate(_ path: String) throws(SafetensorsError) -> String {
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: path, isDirectory: &isFolder) else {
            throw SafetensorsError(.file, path, "does not exist")
        }
        if !isFolder.boolValue { return path }
        let entries: [String]
        do {
            entries = try FileManager.default.contentsOfDirectory(atPath: path)
        } catch {
            throw SafetensorsError(.file, path, "cannot be listed")
        }
        let folder = path as NSString
        let formats = [["safetensors"], torchExtensions]
        for extensions in formats {
            for base in baseNames {
                for variant in variants {
                    let names = extensions.flatMap {
                        ["\(base).\($0).index\(variant).json", "\(base)\(variant).\($0)"]
                    }
                    if let found = names.first(where: entries.contains) {
                        return folder.appendingPathComponent(found)
                    }
                }
            }
        }
        for extensions in formats {
            let indexes = entries.filter { name in
                name.hasSuffix(".json") && extensions.contains { name.contains(".\($0).index.") }
            }
            let singles = entries.filter { name in extensions.contains { name.hasSuffix(".\($0)") } }
            let candidates = (indexes.isEmpty ? singles : indexes).sorted()
            if candidates.count == 1 { return folder.appendingPathComponent(candidates[0]) }
            if candidates.isEmpty { continue }
            throw SafetensorsError(
                .file, path,
                "holds several weight files (\(candidates.prefix(5).joined(separator: ", "))); choose one")
        }
        throw SafetensorsError(
            .file, path, "holds no weights: no .safetensors, .bin, .pt, .pth or .ckpt file")
    }
}
