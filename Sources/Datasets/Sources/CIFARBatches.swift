import FileFormats
import Foundation
import Imaging
import Support

/// CIFAR-10 and CIFAR-100, in a folder or an archive: the binary version, and the pickled one that torchvision
/// downloads.
///
/// A binary record is the label (for CIFAR-100, the coarse and the fine label), then 32x32 red, green and blue
/// values, plane by plane in row-major order. A pickled batch has all images as an array [N, 3072] in the same
/// order.
/// Source: https://www.cs.toronto.edu/~kriz/cifar.html
enum CIFARBatches {
    static let labelOrigin = "the batches"
    private static let side = 32
    private static let pixels = 3 * side * side
    /// Limits in bytes on a pickled batch, of which CIFAR-100's has 155 MB, and on a list of names.
    private static let maximumBatch = 1 << 30
    private static let maximumNames = 1 << 20

    /// A version of the data set.
    private enum Version {
        case binary10, binary100, pickled10, pickled100

        var isPickled: Bool { self == .pickled10 || self == .pickled100 }
        var classCount: Int { self == .binary10 || self == .pickled10 ? 10 : 100 }
        /// The file with the names of the classes.
        var namesFile: String {
            switch self {
            case .binary10: "batches.meta.txt"
            case .binary100: "fine_label_names.txt"
            case .pickled10: "batches.meta"
            case .pickled100: "meta"
            }
        }
        var labelKey: String { self == .pickled10 ? "labels" : "fine_labels" }
    }

    private static let names10 = [
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    ]

    /// Whether a file is one batch, by its name.
    static func isBatch(_ path: String) -> Bool {
        let file = ItemNames.file(path)
        let name = file.hasSuffix(".bin") ? file.dropLast(4) : file[...]
        let number = name.dropFirst("data_batch_".count)
        return name == "test_batch"
            || name.hasPrefix("data_batch_") && !number.isEmpty && number.allSatisfy(\.isNumber)
    }

    /// Opens the batches if the files are those of CIFAR. The training batches are used, or the test batch if it
    /// is the only one.
    static func open(_ files: FileSet, name: String) throws(ImageError) -> PixelArrays? {
        guard let (version, batches) = find(files) else { return nil }
        let names = try classNames(version, batches[0], files)
        var blocks: [PixelArrays.Block] = []
        for batch in batches {
            blocks.append(
                version.isPickled
                    ? try pickled(batch, version, files) : try binary(batch, version, files))
        }
        return PixelArrays(blocks, name: name, classNames: names, labelOrigin: .items(labelOrigin))
    }

    private static func find(_ files: FileSet) -> (Version, [FileSet.Entry])? {
        // Images or arrays do not hide among the batches, and there are few files.
        guard files.entries.count <= 1000 else { return nil }
        var batches: [FileSet.Entry] = []
        var folders: [Substring: Set<String>] = [:]
        for entry in files.entries {
            if isBatch(entry.name) { batches.append(entry) }
            folders[folder(entry.name), default: []].insert(ItemNames.file(entry.name))
        }
        if !batches.isEmpty {
            let isBinary = batches.contains { $0.name.hasSuffix(".bin") }
            batches = batches.filter { $0.name.hasSuffix(".bin") == isBinary }
            let training = batches.filter { ItemNames.file($0.name).hasPrefix("data_batch_") }
            return (isBinary ? .binary10 : .pickled10, sorted(training.isEmpty ? batches : training))
        }
        for (folder, names) in folders {
            let version: Version
            if names.contains("fine_label_names.txt") {
                version = .binary100
            } else if names.contains("meta") {
                version = .pickled100
            } else {
                continue
            }
            let ending = version == .binary100 ? ".bin" : ""
            for stem in ["train", "test"] {
                let path = folder.isEmpty ? stem + ending : "\(folder)/\(stem)\(ending)"
                if let batch = files.entries.first(where: { $0.name == path }) { return (version, [batch]) }
            }
        }
        return nil
    }

    private static func sorted(_ batches: [FileSet.Entry]) -> [FileSet.Entry] {
        batches.sorted { ItemNames.precedes($0.name, $1.name) }
    }

    /// The folder of a file, without its last slash.
    private static func folder(_ path: String) -> Substring {
        path.lastIndex(of: "/").map { path[..<$0] } ?? ""
    }

    // MARK: Batches

    private static func binary(
        _ batch: FileSet.Entry, _ version: Version, _ files: FileSet
    ) throws(ImageError) -> PixelArrays.Block {
        let path = files.path(batch)
        guard let volume = try files.volume(batch) else {
            throw ImageError(.badArchive, name: path, "is compressed; unzip the archive and use the folder")
        }
        let lead = version == .binary100 ? 2 : 1
        let record = lead + pixels
        guard volume.size > 0, volume.size % record == 0 else {
            throw ImageError(
                .badArchive, name: path,
                "\(volume.size) bytes; expected a multiple of \(record) (10000 records are \(10_000 * record) bytes): "
                    + "it is truncated or not a CIFAR batch")
        }
        return block(
            ItemNames.file(batch.name), path, .volume(volume, 0), volume.size / record, lead: lead,
            .byte(lead - 1))
    }

    private static func pickled(
        _ batch: FileSet.Entry, _ version: Version, _ files: FileSet
    ) throws(ImageError) -> PixelArrays.Block {
        let path = files.path(batch)
        guard batch.size <= maximumBatch else {
            throw ImageError(
                .tooLarge, name: path, "\(batch.size) bytes, expected at most \(maximumBatch)")
        }
        let bytes = try files.content(batch)
        let root = try pickle(bytes, path)
        guard let data = root["data"] else {
            throw ImageError(.badArchive, name: path, "has no array 'data': not a CIFAR batch")
        }
        let array: PickledArray
        do throws(PickleError) {
            array = try PickledArray(data, name: "data")
        } catch {
            throw ImageError(.badArchive, name: path, error.detail)
        }
        guard array.kind == "u", array.itemSize == 1, !array.isFortranOrder, array.shape.count == 2,
            array.shape[1] == pixels, array.shape[0] > 0
        else {
            throw ImageError(
                .badArchive, name: path,
                "data is \(array.kind)\(array.itemSize) of \(array.shape); expected uint8 of [N, \(pixels)]")
        }
        let labels = (root[version.labelKey]?.elements ?? []).compactMap(\.intValue)
        guard labels.count == array.shape[0], labels.allSatisfy({ (0..<version.classCount).contains($0) })
        else {
            throw ImageError(
                .badArchive, name: path,
                "\(labels.count) \(version.labelKey) for \(array.shape[0]) images; expected one from 0 to "
                    + "\(version.classCount - 1) for each")
        }
        // Read the images where they lie, unless they are stored in another form.
        let place = offset(of: array.bytes, in: bytes)
        let volume = try files.volume(batch)
        let pixels: PixelArrays.Pixels
        if let place, let volume {
            pixels = .volume(volume, place)
        } else {
            pixels = .memory(array.bytes)
        }
        return block(
            ItemNames.file(batch.name), path, pixels, array.shape[0], lead: 0,
            .values(labels.map { Int32($0) }))
    }

    private static func block(
        _ name: String, _ path: String, _ pixels: PixelArrays.Pixels, _ count: Int, lead: Int,
        _ labels: PixelArrays.Labels
    ) -> PixelArrays.Block {
        PixelArrays.Block(
            name: name, path: path, pixels: pixels, count: count, height: side, width: side, channels: 3,
            isPlanar: true, lead: lead, labels: labels)
    }

    /// Where a part of a file begins.
    private static func offset(of part: [UInt8], in file: [UInt8]) -> Int? {
        guard let first = part.first, part.count <= file.count else { return nil }
        return part.withUnsafeBytes { part in
            file.withUnsafeBytes { file in
                // Few places look like the beginning of the images.
                var comparisons = 0
                for at in 0...file.count - part.count where file[at] == first {
                    guard memcmp(file.baseAddress! + at, part.baseAddress!, min(64, part.count)) == 0 else {
                        continue
                    }
                    if memcmp(file.baseAddress! + at, part.baseAddress!, part.count) == 0 { return at }
                    comparisons += 1
                    if comparisons == 100 { return nil }
                }
                return nil
            }
        }
    }

    private static func pickle(_ bytes: [UInt8], _ path: String) throws(ImageError) -> PickleValue {
        do throws(PickleError) {
            return try Pickle(bytes, path: path, permitted: PickledArray.globals).root
        } catch {
            throw ImageError(.badArchive, name: path, error.detail)
        }
    }

    // MARK: Names

    /// The class names in the folder of a batch, or the standard ones.
    private static func classNames(
        _ version: Version, _ batch: FileSet.Entry, _ files: FileSet
    ) throws(ImageError) -> [String] {
        let folder = folder(batch.name)
        let path = folder.isEmpty ? version.namesFile : "\(folder)/\(version.namesFile)"
        let standard = version.classCount == 10 ? names10 : (0..<100).map { String($0) }
        guard let entry = files.entries.first(where: { $0.name == path }), entry.size <= maximumNames
        else { return standard }
        let bytes = try files.content(entry)
        let names: [String]
        if version.isPickled {
            let key = version == .pickled10 ? "label_names" : "fine_label_names"
            names = (try pickle(bytes, files.path(entry))[key]?.elements ?? []).compactMap(\.stringValue)
        } else {
            names = String(decoding: bytes, as: UTF8.self).split(whereSeparator: \.isNewline).map(String.init)
        }
        return Set(names).count == version.classCount ? names : standard
    }
}
