import Configuration
import FileFormats
import Support
import TensorCore

/// Determines whether two checkpoints contain bitwise identical state by comparing the checksums in their
/// manifests. No tensor is read, so the cost does not depend on the model's size. `Checkpoint.verify` checks
/// that the checksums match the data; `FolderDifference` measures how far the values differ.
package struct StateComparison: Sendable, Equatable {
    /// The comparison of one folder.
    package struct Folder: Sendable, Equatable {
        package let name: String
        /// Number of tensors that both checkpoints have.
        package let tensors: Int
        /// Names of the tensors whose bytes or shapes differ or that only one checkpoint has.
        package let differing: [String]
    }

    /// The folders of both checkpoints, in the order of the first, then those only in the second.
    package let folders: [Folder]

    package init(_ a: Checkpoint, _ b: Checkpoint) throws(CheckpointError) {
        var folders: [Folder] = []
        let names = a.manifest.folders + b.manifest.folders.filter { !a.manifest.folders.contains($0) }
        for name in names { folders.append(try Self.compare(name, a, b)) }
        self.folders = folders
    }

    private static func compare(
        _ folder: String, _ a: Checkpoint, _ b: Checkpoint
    ) throws(CheckpointError) -> Folder {
        let (ours, theirs) = (try checksums(of: folder, in: a), try checksums(of: folder, in: b))
        let entries = a.manifest.parameters.entries + b.manifest.parameters.entries
        var (common, differing) = (0, [String]())
        var seen = Set<String>()
        for entry in entries where seen.insert(entry.name).inserted {
            let (own, other) = (ours[entry.name], theirs[entry.name])
            if own != nil, other != nil { common += 1 }
            if own != other { differing.append(entry.name) }
        }
        return Folder(name: folder, tensors: common, differing: differing)
    }

    private struct Content: Equatable {
        let shape: [Int]
        let checksum: CRC32C
    }

    private static func checksums(
        of folder: String, in checkpoint: Checkpoint
    ) throws(CheckpointError) -> [String: Content] {
        guard checkpoint.manifest.folders.contains(folder) else { return [:] }
        let places = checkpoint.tensors(of: folder)
        var contents: [String: Content] = [:]
        for entry in checkpoint.manifest.parameters.entries {
            contents[entry.name] = Content(
                shape: entry.shape, checksum: try places.place(of: entry.name).tensor.checksum)
        }
        return contents
    }
}

/// A key whose value differs between two configurations.
package struct ConfigurationDifference: Sendable, Equatable {
    /// The full key with its sections, such as "optimizer.learning_rate".
    package let key: String
    /// The value as JSON; nil if the key is absent.
    package let old: String?
    package let new: String?

    /// All keys whose values differ between two resolved configurations (YAML): first those of the old one,
    /// in its order, then those only in the new one. A list counts as one value.
    package static func all(from old: String, to new: String) throws(ConfigError) -> [ConfigurationDifference]
    {
        let (before, after) = (
            try leaves(old, "the old configuration"), try leaves(new, "the new configuration")
        )
        let values = Dictionary(after) { first, _ in first }
        let known = Set(before.map(\.0))
        return before.filter { values[$0.0] != $0.1 }.map {
            ConfigurationDifference(key: $0.0, old: $0.1, new: values[$0.0])
        }
            + after.filter { !known.contains($0.0) }.map {
                ConfigurationDifference(key: $0.0, old: nil, new: $0.1)
            }
    }

    private static func leaves(_ yaml: String, _ source: String) throws(ConfigError) -> [(String, String)] {
        var found: [(String, String)] = []
        func walk(_ node: ConfigNode, _ path: String) {
            guard let entries = node.entries, !entries.isEmpty else {
                found.append((path, (try? node.json.text()) ?? "not a number"))
                return
            }
            for entry in entries { walk(entry.node, path.isEmpty ? entry.key : "\(path).\(entry.key)") }
        }
        walk(try YAMLNode.parse(yaml, source: source), "")
        return found
    }
}

/// The positions of the tensors in one folder of a checkpoint.
struct TensorPlaces {
    /// The folder's path, for errors.
    let path: String
    private var places: [String: (WeightFile, WeightFile.Tensor)] = [:]

    fileprivate init(_ weights: [WeightFile], path: String) {
        self.path = path
        for weight in weights {
            for tensor in weight.tensors { places[tensor.entry.name] = (weight, tensor) }
        }
    }

    func place(of name: String) throws(CheckpointError) -> (file: WeightFile, tensor: WeightFile.Tensor) {
        guard let place = places[name] else {
            throw CheckpointError(.damaged, path, "has no tensor '\(name)'")
        }
        return place
    }
}

extension Checkpoint {
    func tensors(of folder: String) -> TensorPlaces {
        TensorPlaces(weights.filter { $0.file.folder == folder }, path: at(folder))
    }

    /// A reader for a weight file; reuses `open` if it is a reader of the same file.
    func reader(of weight: WeightFile, reusing open: CheckpointReader?) throws(CheckpointError)
        -> CheckpointReader
    {
        let path = at(weight.file.path)
        if let open, open.path == path { return open }
        return try CheckpointReader(path, expected: weight.file.bytes)
    }
}
