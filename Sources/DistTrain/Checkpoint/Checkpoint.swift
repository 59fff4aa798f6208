import Foundation
import LDMModel

/// A finished checkpoint on disk.
public struct Checkpoint: Sendable {
    public let path: String
    public let manifest: CheckpointManifest

    /// Opens a checkpoint: its manifest must agree with its own checksum, and every file be there in full length.
    /// The files' own checksums are compared by `verify` and `load`.
    public init(opening path: String) throws(CheckpointError) {
        self.path = path
        manifest = try CheckpointManifest(
            contentsOf: (path as NSString).appendingPathComponent(CheckpointManifest.fileName))
        for file in manifest.files {
            var status = stat()
            guard stat(at(file.path), &status) == 0 else {
                throw CheckpointError(.damaged, at(file.path), "is in the manifest, but not there")
            }
            guard Int(status.st_size) == file.bytes else {
                throw CheckpointError(
                    .damaged, at(file.path), "is \(status.st_size) bytes, expected \(file.bytes); cut short?")
            }
        }
    }

    private func at(_ relative: String) -> String { (path as NSString).appendingPathComponent(relative) }

    /// Reads every file and compares its checksum.
    public func verify() throws(CheckpointError) {
        for file in manifest.files { try verify(file) }
    }

    /// Reads the files of one folder and compares their checksums.
    public func verify(folder: String) throws(CheckpointError) {
        for file in manifest.files where file.path.hasPrefix("\(folder)/") { try verify(file) }
    }

    private func verify(_ file: CheckpointFile) throws(CheckpointError) {
        let found = try CRC32C.ofFile(at(file.path))
        guard found.text == file.crc32c, found.count == file.bytes else {
            throw CheckpointError(
                .damaged, at(file.path),
                "has checksum \(found.text), expected \(file.crc32c); damaged on the disk?")
        }
    }

    /// Checks that the checkpoint holds what `buffers` and `table` want.
    ///
    /// - Throws: one error with all names that do not fit, whether an option or the model is to blame.
    public func checkFits(_ buffers: [StateBuffer], _ table: TensorTable) throws(CheckpointError) {
        let absent = buffers.map(\.folder).filter { !manifest.folders.contains($0) }
        guard absent.isEmpty else {
            throw CheckpointError(
                .incompatible, path,
                "holds \(manifest.folders.joined(separator: ", ")), expected also \(absent.joined(separator: ", ")); "
                    + "resume with the configuration it was made with (\(manifest.run.name))")
        }
        if let difference = table.difference(from: manifest.parameters) {
            throw CheckpointError(
                .incompatible, path,
                "is of another model than the configuration's: \(difference)")
        }
    }

    // MARK: Loading

    /// The weight files that hold `folder`'s tensors.
    func weightFiles(of folder: String) -> [CheckpointFile] {
        manifest.files.filter { $0.path.hasPrefix("\(folder)/") && $0.path.hasSuffix(".safetensors") }
    }

    /// Verifies one weight file and copies its tensors to their places. Values have changed even where this throws.
    func read(
        _ file: CheckpointFile, into buffer: StateBuffer,
        _ entries: [String: TensorTable.Entry]
    ) throws(CheckpointError) {
        // Read in whole first: a disk's error is then an error here, and not a signal in the mapping.
        try verify(file)
        do {
            let tensors = try SafetensorsFile(path: at(file.path))
            for name in tensors.names {
                guard let entry = entries[name] else { continue }
                try tensors.expectShape(entry.shape, of: name)
                let part = buffer.range.clamped(to: entry.offset..<entry.offset + entry.count)
                if part.isEmpty { continue }
                let whole = UnsafeMutableBufferPointer<Float>.allocate(capacity: entry.count)
                defer { whole.deallocate() }
                try tensors.copyFloats(of: name, into: whole)
                (buffer.values + (part.lowerBound - buffer.range.lowerBound)).update(
                    from: whole.baseAddress! + (part.lowerBound - entry.offset), count: part.count)
            }
        } catch {
            throw CheckpointError(reading: error, from: at(file.path))
        }
    }

    /// Loads all buffers on one process, comparing checksums. Values have changed even where this throws.
    public func load(into buffers: [StateBuffer], _ table: TensorTable) throws {
        try checkFits(buffers, table)
        try load(into: buffers, table, SingleProcess())
    }

    /// Loads all buffers on all ranks, whatever their number: each file is read and verified by one rank, and goes
    /// to the others by message, so that a shared disk is read once. Collective; throws on all ranks alike.
    func load(into buffers: [StateBuffer], _ table: TensorTable, _ communicator: any Communicator) throws {
        let entries = Dictionary(table.entries.map { ($0.name, $0) }) { first, _ in first }
        var reads: [(file: CheckpointFile, buffer: StateBuffer)] = []
        for buffer in buffers { reads += weightFiles(of: buffer.folder).map { ($0, buffer) } }

        // The tensors that each file turned out to hold, as [first element, length] of the flat buffer.
        try communicator.collectively("loading \(path)") {
            var ranges: [[[Int]]] = []
            for read in reads {
                try self.read(read.file, into: read.buffer, entries)
                let names = try SafetensorsFile(path: at(read.file.path)).names
                ranges.append(names.compactMap { entries[$0] }.map { [$0.offset, $0.count] })
            }
            try checkComplete(reads.map(\.buffer), [ranges], table)
        }
    }

    /// Every tensor must have come from exactly one file of every folder.
    private func checkComplete(_ buffers: [StateBuffer], _ ranges: [[[[Int]]]], _ table: TensorTable) throws {
        var found: [String: [Int]] = [:]
        for (index, buffer) in buffers.enumerated() {
            found[buffer.folder, default: []] += ranges[index % ranges.count][index / ranges.count].map {
                $0[0]
            }
        }
        let expected = table.entries.map(\.offset).sorted()
        for (folder, offsets) in found where offsets.sorted() != expected {
            throw CheckpointError(
                .damaged, at(folder), "its files hold \(offsets.count) tensors, expected \(expected.count)")
        }
    }
}
