import FileFormats
import Foundation
import LDMModel
import Support

/// A part of a flat fp32 buffer in the layout of the run's tensor table, and the checkpoint folder in which
/// it is stored.
package struct StateBuffer {
    /// "unet", "ema-0.9999", "exp_avg" or "exp_avg_sq".
    package let folder: String
    /// `range.count` elements: those of the flat buffer at `range`.
    package let values: UnsafeMutablePointer<Float>
    package let range: Range<Int>

    package init(_ folder: String, _ values: UnsafeMutablePointer<Float>, _ range: Range<Int>) {
        (self.folder, self.values, self.range) = (folder, values, range)
    }
}

/// The state of a training run between two steps: everything that cannot be recomputed.
package struct TrainingState {
    /// Optimizer updates made.
    package var step: Int
    /// Samples used by these updates.
    package var samplesSeen: Int
    /// The metric that `keep_best` compares; nil if it was not measured.
    package var metric: CheckpointMetric?
    /// Sums over the steps that have not been logged or saved yet.
    package var sums: RunningSums
    /// The buffers; the model's own weights come first.
    package var buffers: [StateBuffer]

    package init(
        step: Int, samplesSeen: Int, metric: CheckpointMetric? = nil, sums: RunningSums = RunningSums(),
        buffers: [StateBuffer]
    ) {
        (self.sums, self.step, self.samplesSeen) = (sums, step, samplesSeen)
        (self.metric, self.buffers) = (metric, buffers)
    }
}

/// A checkpoint being written: files in a folder that is not a valid checkpoint until `commit` renames it.
///
/// One rank calls `create`, then every rank calls `writeShards`, then one rank calls `commit`. The caller
/// (`CheckpointWriter`) synchronizes the ranks, so that this type can be tested on one rank.
package struct CheckpointDraft: Sendable {
    package let folder: CheckpointFolder
    package let step: Int
    /// The temporary folder in which the files are written.
    package let path: String

    package init(folder: CheckpointFolder, step: Int, id: String) {
        self.folder = folder
        self.step = step
        path = folder.partialPath(step: step, id: id)
    }

    private func at(_ relative: String) -> String { (path as NSString).appendingPathComponent(relative) }

    /// Creates the folders; throws if one of them exists.
    package func create(_ folders: [String]) throws(CheckpointError) {
        for name in [path] + folders.map(at) where mkdir(name, 0o755) != 0 {
            throw CheckpointError.system(name, "cannot be created")
        }
    }

    /// Writes one rank's share of every folder, at most one file per folder. The data is on the disk when
    /// this returns.
    ///
    /// - Parameters:
    ///   - buffers: each must contain the rank's tensors completely.
    ///   - progress: called after every tensor.
    /// - Returns: the files written, for `commit`.
    package func writeShards(
        _ buffers: [StateBuffer], _ table: TensorTable, rank: Int, of worldSize: Int,
        progress: () -> Void = {}
    ) throws(CheckpointError) -> [CheckpointFile] {
        let parts = table.partition(over: worldSize)
        guard let name = TensorTable.shardNames(parts)[rank] else { return [] }
        guard FileManager.default.fileExists(atPath: path) else {
            throw CheckpointError(
                .inaccessible, path,
                "rank 0 made this folder, but rank \(rank) does not see it; the run's folder must be on a "
                    + "file system that all hosts share")
        }
        var written: [CheckpointFile] = []
        for buffer in buffers {
            let relative = "\(buffer.folder)/\(name)"
            written.append(try writeShard(parts[rank], of: buffer, as: relative, progress))
        }
        return written
    }

    /// Completes the checkpoint and renames it to its final name.
    ///
    /// - Returns: the checkpoint's path.
    package func commit(
        shards: [[CheckpointFile]], _ table: TensorTable, folders: [String], modelConfig: String,
        manifest: ([CheckpointFile]) -> CheckpointManifest
    ) throws(CheckpointError) -> String {
        try complete(
            shards: shards, table, folders: folders, modelConfig: modelConfig, manifest: manifest)
        return try name()
    }

    /// Writes the indexes and configurations, then the manifest: the complete checkpoint except for its final
    /// name.
    ///
    /// - Parameters:
    ///   - shards: the files written by each rank, in rank order.
    ///   - manifest: creates the manifest from the list of all files.
    func complete(
        shards: [[CheckpointFile]], _ table: TensorTable, folders: [String], modelConfig: String,
        manifest: ([CheckpointFile]) -> CheckpointManifest
    ) throws(CheckpointError) {
        do {
            var files = shards.flatMap { $0 }
            for file in files { try checkSize(file) }
            for folder in folders {
                files.append(
                    try write(Array(modelConfig.utf8), to: "\(folder)/\(ModelFolder.configFile)"))
                if let index = try writeIndex(of: folder, table, ranks: shards.count) {
                    files.append(index)
                }
            }
            // Sync the directory entries of the files before the manifest is written, and the manifest before
            // the rename.
            for folder in folders { try AtomicFile.synchronizeFolder(of: at("\(folder)/.")) }
            let bytes = try manifest(files.sorted { $0.path < $1.path }).encoded()
            _ = try write(bytes, to: CheckpointManifest.fileName)
            try AtomicFile.synchronizeFolder(of: at(CheckpointManifest.fileName))
        } catch {
            throw CheckpointError(writing: error, to: path)
        }
    }

    /// Removes all files written so far.
    package func discard() {
        // Ignore errors here: the caller reports the failure that led to this call, and a leftover is removed
        // at the next start.
        try? FileManager.default.removeItem(atPath: path)
    }

    // MARK: Parts

    private func writeShard(
        _ entries: [TensorTable.Entry], of buffer: StateBuffer, as relative: String, _ progress: () -> Void
    ) throws(CheckpointError) -> CheckpointFile {
        var shard = try WeightShardWriter(path: at(relative), entries)
        for entry in entries {
            let tensor = UnsafeRawBufferPointer(
                UnsafeBufferPointer(start: buffer.pointer(entry.offset), count: entry.count))
            try shard.append(entry.name) { (write) throws(CheckpointError) in try write(tensor) }
            progress()
        }
        return try shard.finish(as: relative)
    }

    private func writeIndex(of folder: String, _ table: TensorTable, ranks: Int) throws -> CheckpointFile? {
        let parts = table.partition(over: ranks)
        let names = TensorTable.shardNames(parts)
        guard names.compactMap({ $0 }).count > 1 else { return nil }
        var map: [String: String] = [:]
        for (part, name) in zip(parts, names) {
            for entry in part { map[entry.name] = name }
        }
        let relative = "\(folder)/\(ModelFolder.weightsFile).index.json"
        let index = SafetensorsIndex(weightMap: map, totalSize: table.bytes)
        return try write(Array(try index.text().utf8), to: relative)
    }

    private func write(_ bytes: [UInt8], to relative: String) throws -> CheckpointFile {
        try AtomicFile.writeFresh(bytes, to: at(relative))
        return CheckpointFile(path: relative, checksum: CRC32C.of(bytes))
    }

    /// Checks that a file written by another rank is visible on this rank.
    private func checkSize(_ file: CheckpointFile) throws(CheckpointError) {
        var status = stat()
        guard stat(at(file.path), &status) == 0 else {
            throw CheckpointError(
                .inaccessible, at(file.path),
                "was written by another rank but is not seen by rank 0; the run's folder must be on a file "
                    + "system that all hosts share")
        }
        guard Int(status.st_size) == file.bytes else {
            throw CheckpointError(
                .damaged, at(file.path), "is \(status.st_size) bytes, expected \(file.bytes) as written")
        }
    }

    /// Renames a complete draft to its final name, which makes it a valid checkpoint.
    ///
    /// - Returns: its path.
    func name() throws(CheckpointError) -> String {
        let target = folder.path(step: step)
        // `rename` would replace an empty folder, so check first. This is not a race, since only rank 0 of
        // one run creates names here.
        var status = stat()
        guard lstat(target, &status) != 0 else {
            throw CheckpointError(.inaccessible, target, "exists already; is another run using this folder?")
        }
        guard rename(path, target) == 0 else {
            throw CheckpointError.system(target, "cannot be renamed to its final name")
        }
        do {
            try AtomicFile.synchronizeFolder(of: target)
        } catch {
            throw CheckpointError(writing: error, to: target)
        }
        return target
    }
}
