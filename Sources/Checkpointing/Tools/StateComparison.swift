import Support

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
