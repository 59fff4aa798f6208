import Support

/// Whether two checkpoints hold the same state to the bit, by the checksums of their manifests: no value is read, so this
/// costs nothing for any model. That the checksums are those of the bytes is `Checkpoint.verify`'s to tell; how far
/// values are apart, `FolderDifference`'s.
package struct StateComparison: Sendable, Equatable {
    /// The tensors of one folder.
    package struct Folder: Sendable, Equatable {
        package let name: String
        /// Tensors that both have.
        package let tensors: Int
        /// Those whose bytes differ, or that only one side has or has in another shape.
        package let differing: [String]
    }

    /// Folders of both, in the order of the first, then those of the second alone.
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
