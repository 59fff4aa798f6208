import Foundation
import Support

/// The index of a sharded model, which maps each tensor to its file (`….safetensors.index.json`).
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

/// A model's weights by name, from one safetensors file or from shards with an index.
package final class WeightFiles: Sendable {
    /// The file, index or folder that was opened.
    package let path: String
    /// The open files.
    package let files: [SafetensorsFile]
    private let owner: [String: SafetensorsFile]

    /// Base names of weight files in diffusers and transformers, tried in this order.
    package static let baseNames = ["diffusion_pytorch_model", "model"]

    /// Variants of a base name, tried in this order: full precision first, then the closest to it.
    static let variants = ["", ".fp32", ".fp16", ".bf16"]

    /// Opens a `.safetensors` file, a `.safetensors.index.json`, or a folder. A folder must contain either of
    /// them under a name from `baseNames`, plain or as a variant (`….fp16.safetensors`,
    /// `….safetensors.index.fp16.json`), or exactly one of them under any name.
    package init(path: String) throws(SafetensorsError) {
        self.path = path
        let file = try Self.locate(path)
        if !file.hasSuffix(".json") {
            let single = try SafetensorsFile(path: file)
            files = [single]
            owner = Dictionary(uniqueKeysWithValues: single.names.map { ($0, single) })
            return
        }
        let index = try SafetensorsIndex(contentsOf: file)
        let folder = (file as NSString).deletingLastPathComponent
        var opened: [String: SafetensorsFile] = [:]
        for name in Set(index.weightMap.values).sorted() {
            opened[name] = try SafetensorsFile(path: (folder as NSString).appendingPathComponent(name))
        }
        var owner: [String: SafetensorsFile] = [:]
        var wrong: [String] = []
        for (tensor, name) in index.weightMap {
            owner[tensor] = opened[name]
            if opened[name]?.contains(tensor) != true { wrong.append("\(tensor) is not in \(name)") }
        }
        for (name, shard) in opened {
            wrong += shard.names.filter { owner[$0] !== shard }.map {
                "\($0) is in \(name), but not in weight_map"
            }
        }
        if !wrong.isEmpty {
            throw SafetensorsError(
                .missing, file,
                "does not match its shards in \(wrong.count) tensors: \(shortList(wrong.sorted()))")
        }
        files = opened.keys.sorted().compactMap { opened[$0] }
        self.owner = owner
    }

    /// All names, sorted.
    package var names: [String] { owner.keys.sorted() }

    /// Whether a tensor of this name exists.
    package func contains(_ name: String) -> Bool { owner[name] != nil }

    /// The file that holds a tensor.
    package func file(of name: String) throws(SafetensorsError) -> SafetensorsFile {
        if let file = owner[name] { return file }
        let hint = nearestName(to: name, among: names).map { "; did you mean '\($0)'?" } ?? ""
        throw SafetensorsError(.missing, path, "has no tensor '\(name)'\(hint)")
    }

    /// Type and shape of a tensor.
    package func info(of name: String) throws(SafetensorsError) -> SafetensorsInfo {
        try file(of: name).info(of: name)
    }

    /// The tensor as fp32.
    package func floats(of name: String) throws(SafetensorsError) -> [Float] {
        try file(of: name).floats(of: name)
    }

    /// Converts the tensor to fp32 into `destination`, whose count must equal the number of elements.
    package func copyFloats(
        of name: String, into destination: UnsafeMutableBufferPointer<Float>
    ) throws(SafetensorsError) {
        try file(of: name).copyFloats(of: name, into: destination)
    }

    /// Calls `body` with the tensor's bytes, valid only inside `body`.
    package func withBytes<Result>(
        of name: String, _ body: (UnsafeRawBufferPointer) throws -> Result
    ) throws -> Result {
        try file(of: name).withBytes(of: name, body)
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
        let indexes = entries.filter { $0.contains(".safetensors.index.") && $0.hasSuffix(".json") }.sorted()
        let singles = entries.filter { $0.hasSuffix(".safetensors") }.sorted()
        for base in baseNames {
            for variant in variants {
                let names = ["\(base).safetensors.index\(variant).json", "\(base)\(variant).safetensors"]
                if let found = names.first(where: entries.contains) {
                    return (path as NSString).appendingPathComponent(found)
                }
            }
        }
        let candidates = indexes.isEmpty ? singles : indexes
        if candidates.count == 1 { return (path as NSString).appendingPathComponent(candidates[0]) }
        if candidates.isEmpty {
            let pickles = entries.filter {
                $0.hasSuffix(".bin") || $0.hasSuffix(".pt") || $0.hasSuffix(".ckpt")
            }.sorted()
            let hint = pickles.first.map { "; '\($0)' is a PyTorch pickle, convert it to safetensors" } ?? ""
            throw SafetensorsError(.file, path, "holds no .safetensors file\(hint)")
        }
        throw SafetensorsError(
            .file, path,
            "holds several weight files (\(candidates.prefix(5).joined(separator: ", "))); choose one")
    }
}
