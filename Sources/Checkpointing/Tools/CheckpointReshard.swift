import Foundation
import Support

/// `disttrain checkpoint reshard`: rewrites a checkpoint as another number of ranks would have written it.
///
/// The bytes are copied in chunks and compared with their checksums, so memory does not grow with the model
/// and damage is not copied. Training does not need this tool: it can resume on any number of ranks.
package struct CheckpointReshard {
    let source: Checkpoint
    let ranks: Int
    let folder: CheckpointFolder

    /// - Parameters:
    ///   - path: a checkpoint, or a run, whose newest checkpoint is used.
    ///   - output: the folder for the new `step-…` folder; created if it does not exist.
    package init(of path: String, ranks: Int, output: String) throws(CheckpointError) {
        precondition(ranks > 0, "\(ranks) ranks")
        source = try Checkpoint.newest(at: path)
        self.ranks = ranks
        folder = CheckpointFolder(output)
    }

    /// Writes the new checkpoint atomically. If the output folder belongs to a run, that run must not be in
    /// use.
    ///
    /// - Parameter note: called with one line that explains a long wait.
    /// - Returns: the new checkpoint's path.
    /// - Throws: `CheckpointError`, or `RunLockError`, which names the process that uses the run.
    package func run(
        timing: RunLock.Timing = RunLock.Timing(), note: (String) -> Void = { _ in }
    ) throws -> String {
        let manifest = source.manifest
        let target = folder.path(step: manifest.step)
        guard !FileManager.default.fileExists(atPath: target) else {
            throw CheckpointError(.inaccessible, target, "exists already; choose another --output")
        }
        // Verify the parts that are not copied tensor by tensor: headers and small files.
        try source.verify(source.parts.filter { !$0.isTensor })
        do {
            try FileManager.default.createDirectory(atPath: folder.path, withIntermediateDirectories: true)
        } catch {
            throw CheckpointError(
                .inaccessible, folder.path, "cannot be created: \(error.localizedDescription)")
        }
        return try RunLock.holding(folder.run, timing: timing, note: note) { try write() }
    }

    private func write() throws(CheckpointError) -> String {
        let manifest = source.manifest
        let draft = CheckpointDraft(
            folder: folder, step: manifest.step,
            id: String(UInt32.random(in: 0x1000_0000...UInt32.max), radix: 16))
        try draft.create(manifest.folders)
        do throws(CheckpointError) {
            return try draft.commit(
                shards: try writeShards(to: draft), manifest.parameters, folders: manifest.folders,
                modelConfig: manifest.run.modelConfig
            ) { files in
                var resharded = manifest
                resharded.worldSize = ranks
                resharded.files = files
                return resharded
            }
        } catch {
            draft.discard()
            throw error
        }
    }

    /// Writes the files that each of the ranks would have written.
    private func writeShards(to draft: CheckpointDraft) throws(CheckpointError) -> [[CheckpointFile]] {
        let parts = source.manifest.parameters.partition(over: ranks)
        let names = TensorTable.shardNames(parts)
        var shards = [[CheckpointFile]](repeating: [], count: ranks)
        for folder in source.manifest.folders {
            let tensors = source.tensors(of: folder)
            for (rank, name) in names.enumerated() {
                guard let name else { continue }
                let relative = "\(folder)/\(name)"
                shards[rank].append(try copy(parts[rank], tensors, to: draft, as: relative))
            }
        }
        return shards
    }

    private func copy(
        _ entries: [TensorTable.Entry], _ tensors: TensorPlaces, to draft: CheckpointDraft,
        as relative: String
    ) throws(CheckpointError) -> CheckpointFile {
        var shard = try WeightShardWriter(
            path: (draft.path as NSString).appendingPathComponent(relative), entries)
        var reader: CheckpointReader?
        for entry in entries {
            let (weight, tensor) = try tensors.place(of: entry.name)
            let open = try source.reader(of: weight, reusing: reader)
            reader = open
            let sum = try shard.append(entry.name) { (write) throws(CheckpointError) in
                try open.forEachPiece(of: tensor.range, write)
            }
            guard sum == tensor.checksum else {
                throw CheckpointError(
                    .damaged, open.path,
                    "tensor '\(entry.name)' has checksum \(sum.text), expected \(tensor.checksum.text); damaged on "
                        + "the disk?")
            }
        }
        return try shard.finish(as: relative)
    }
}
