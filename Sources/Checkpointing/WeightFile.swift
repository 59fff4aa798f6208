import FileFormats
import Support
import TensorCore

/// A weight file of a checkpoint and the positions of its tensors, which follow from the manifest alone: the
/// file ends with the tensors' bytes, fp32, contiguous and in the manifest's order; everything before them is
/// the header.
struct WeightFile: Sendable {
    struct Tensor: Sendable {
        let entry: TensorTable.Entry
        /// The tensor's byte range in the file.
        let range: Range<Int>
        let checksum: CRC32C
    }

    let file: CheckpointFile
    let tensors: [Tensor]
    /// Size of the header in bytes, including its length field.
    let headerBytes: Int

    /// The weight files of a manifest, which must contain each tensor of each folder exactly once.
    ///
    /// - Parameter path: the manifest's path, for errors.
    static func all(of manifest: CheckpointManifest, path: String) throws(CheckpointError) -> [WeightFile] {
        let entries = Dictionary(uniqueKeysWithValues: manifest.parameters.entries.map { ($0.name, $0) })
        var found: [String: Set<String>] = [:]
        var weights: [WeightFile] = []
        for file in manifest.files where file.isWeights {
            for tensor in file.tensors where !found[file.folder, default: []].insert(tensor.name).inserted {
                throw CheckpointError(.damaged, path, "\(file.folder) holds '\(tensor.name)' twice")
            }
            weights.append(try WeightFile(file, entries, path: path))
        }
        for folder in manifest.folders {
            let names = found[folder, default: []]
            if let entry = manifest.parameters.entries.first(where: { !names.contains($0.name) }) {
                throw CheckpointError(
                    .damaged, path,
                    "\(folder) holds \(names.count) of \(entries.count) tensors, '\(entry.name)' is in none of its files"
                )
            }
        }
        return weights
    }

    private init(
        _ file: CheckpointFile, _ entries: [String: TensorTable.Entry], path: String
    ) throws(CheckpointError) {
        self.file = file
        var end = file.bytes
        var reversed: [Tensor] = []
        for tensor in file.tensors.reversed() {
            guard let entry = entries[tensor.name] else {
                throw CheckpointError(
                    .damaged, path,
                    "\(file.path) holds '\(tensor.name)', which is not a parameter of the model")
            }
            // 10 bytes is the size of the shortest header, that of an empty table.
            guard entry.bytes <= end - 10, let checksum = CRC32C(text: tensor.crc32c, count: entry.bytes)
            else {
                throw CheckpointError(.damaged, path, "\(file.path) has no room for '\(tensor.name)'")
            }
            reversed.append(Tensor(entry: entry, range: end - entry.bytes..<end, checksum: checksum))
            end -= entry.bytes
        }
        tensors = reversed.reversed()
        headerBytes = end
        guard (10...8 + SafetensorsHeader.maximumLength).contains(end) else {
            throw CheckpointError(.damaged, path, "\(file.path) would have a header of \(end) bytes")
        }
    }

    /// The expected checksum of the whole file, given that of its header.
    func checksum(header: CRC32C) -> CRC32C {
        var whole = header
        for tensor in tensors { whole.append(tensor.checksum) }
        return whole
    }

    /// Checks that the header matches the manifest: names, shapes, type and offsets.
    func check(header: [UInt8], path: String) throws(CheckpointError) {
        let table: SafetensorsHeader
        do throws(SafetensorsError) {
            table = try SafetensorsHeader(head: header, fileSize: file.bytes, path: path)
        } catch {
            throw CheckpointError(.damaged, path, error.message)
        }
        let expected = tensors.map {
            SafetensorsInfo(
                name: $0.entry.name, dtype: .f32, shape: $0.entry.shape,
                byteRange: $0.range.lowerBound - headerBytes..<$0.range.upperBound - headerBytes)
        }
        // Empty tensors take no bytes, so their order is irrelevant.
        func isSolid(_ info: SafetensorsInfo) -> Bool { !info.byteRange.isEmpty }
        guard table.dataStart == headerBytes, table.tensors.count == expected.count,
            table.tensors.filter(isSolid) == expected.filter(isSolid)
        else {
            let wrong = zip(table.tensors, expected).first { $0 != $1 }
            throw CheckpointError(
                .damaged, path,
                "its header lists different tensors than the manifest"
                    + (wrong.map { ", first '\($0.name)' in place of '\($1.name)'" } ?? ""))
        }
    }
}
