import FileFormats
import Foundation
import Imaging
import Support

// N: images, H, W: height and width, C: channels.

/// Opens images in NumPy arrays of uint8: [N, H, W, C] with 1 or 3 channels, [N, H, W], [N, C, H, W], or one
/// image of [H, W, 3].
///
/// Of an .npz file, `arr_0` is used, as written by guided-diffusion and by `disttrain sample`; otherwise the
/// only array of images, or the only one with `train` in its name. The labels are those in `arr_1`, or in the
/// array with `label` in place of `image`, or `y` in place of `x`.
///
/// - Parameter spool: has the arrays that are compressed.
func openArrays(
    _ files: FileSet, _ spool: Spool?, name: String, limits: ImageLimits, skipBad: Bool
) throws(ImageError) -> PixelArrays {
    var opener = ArrayOpener(files: files, spool: spool, limits: limits)
    let entries = files.entries.sorted {
        $0.container == $1.container ? ItemNames.precedes($0.name, $1.name) : $0.container < $1.container
    }
    let isArray = { (entry: FileSet.Entry) in entry.name.hasSuffix(".npy") }
    let others = entries.filter { !isArray($0) && !ItemNames.isDescription($0.name) }.map(files.name)
    guard others.isEmpty || skipBad else {
        throw ImageError(
            .mixed, name: name,
            "\(others.count) other files among .npy arrays (\(shortList(others, limit: 3))); remove them, or skip "
                + "them with --skip-bad")
    }
    var blocks: [PixelArrays.Block] = []
    for container in files.containers.indices {
        let arrays = entries.filter { Int($0.container) == container && isArray($0) }
        guard !arrays.isEmpty else { continue }
        blocks += try opener.blocks(arrays, files.containers[container])
    }
    let labelled = blocks.filter { if case .none = $0.labels { false } else { true } }
    return PixelArrays(
        blocks, name: name,
        labelOrigin: labelled.isEmpty ? .none : .items("the arrays of labels"),
        skipped: others + files.skipped)
}

private struct ArrayOpener {
    let files: FileSet
    let spool: Spool?
    let limits: ImageLimits

    private static let advice =
        "expected uint8 of [N, H, W, 3] or [N, H, W], or .npy files of [N, 3, H, W]"

    /// The arrays of images in a folder or an archive.
    mutating func blocks(
        _ arrays: [FileSet.Entry], _ container: FileSet.Container
    ) throws(ImageError) -> [PixelArrays.Block] {
        guard case .zip = container.kind, container.path.lowercased().hasSuffix(".npz"), arrays.count > 1
        else {
            var blocks: [PixelArrays.Block] = []
            for array in arrays { blocks.append(try block(array, isNamedByIndex: arrays.count == 1)) }
            return blocks
        }
        let images = try choose(arrays, container)
        var block = try block(images, isNamedByIndex: true)
        let names = Self.labelNames(stem(images))
        if let labels = arrays.first(where: { names.contains(stem($0)) && $0.name != images.name }) {
            block.labels = .values(try values(labels, count: block.count))
        }
        return [block]
    }

    private func stem(_ array: FileSet.Entry) -> String { String(ItemNames.stem(array.name)) }

    /// The array of images among several.
    private func choose(
        _ arrays: [FileSet.Entry], _ container: FileSet.Container
    ) throws(ImageError) -> FileSet.Entry {
        if let first = arrays.first(where: { $0.name == "arr_0.npy" }) { return first }
        var images: [FileSet.Entry] = []
        var shapes: [String] = []
        for array in arrays {
            let header = try open(array).header
            shapes.append("\(stem(array)) (\(header.type) \(header.shape))")
            if header.type == "|u1", Shape(header) != nil { images.append(array) }
        }
        if images.count == 1 { return images[0] }
        let training = images.filter { $0.name.contains("train") }
        if training.count == 1 { return training[0] }
        throw ImageError(
            .badArchive, name: container.path,
            "\(images.isEmpty ? "no" : "more than one") array of images: \(shortList(shapes)); "
                + (images.isEmpty ? Self.advice : "name one, as in \(container.path)/\(stem(images[0]))"))
    }

    /// The names that the array of labels may have.
    private static func labelNames(_ images: String) -> Set<String> {
        var names: Set<String> = images == "arr_0" ? ["arr_1"] : []
        names.insert(images.replacingOccurrences(of: "image", with: "label"))
        if images.hasPrefix("x") { names.insert("y" + images.dropFirst()) }
        if images.hasPrefix("X") { names.insert("y" + images.dropFirst()) }
        if ["images", "samples", "x", "X", "data"].contains(images) {
            names.formUnion(["labels", "label", "y"])
        }
        return names
    }

    // MARK: Shapes

    /// How the dimensions of an array are images.
    private struct Shape {
        var count: Int
        var height: Int
        var width: Int
        var channels: Int
        var isPlanar = false

        init?(_ header: NumpyHeader) {
            let shape = header.shape
            switch shape.count {
            case 4 where shape[3] == 3 || shape[3] == 1:
                (count, height, width, channels) = (shape[0], shape[1], shape[2], shape[3])
            case 4 where shape[1] == 3 || shape[1] == 1:
                (count, channels, height, width) = (shape[0], shape[1], shape[2], shape[3])
                isPlanar = true
            case 3 where shape[2] == 3: (count, height, width, channels) = (1, shape[0], shape[1], 3)
            case 3: (count, height, width, channels) = (shape[0], shape[1], shape[2], 1)
            default: return nil
            }
            let isRight = [height, width].allSatisfy { (1...1 << 16).contains($0) } && count > 0
            guard isRight, !header.isFortranOrder else { return nil }
        }
    }

    private func block(
        _ array: FileSet.Entry, isNamedByIndex: Bool
    ) throws(ImageError) -> PixelArrays.Block {
        let (volume, header) = try open(array)
        let path = files.path(array)
        guard header.type == "|u1" else {
            throw ImageError(
                .badArchive, name: path,
                "has elements of type \(header.type.isEmpty ? "(several)" : header.type); \(Self.advice); convert "
                    + "values in [-1, 1] with `(127.5 * x + 127.5).round().clip(0, 255).astype('uint8')`")
        }
        guard let shape = Shape(header) else {
            let order = header.isFortranOrder ? " in Fortran order" : ""
            throw ImageError(.badArchive, name: path, "has the shape \(header.shape)\(order); \(Self.advice)")
        }
        let bytes = volume.size - header.size
        guard let count = header.count(limit: max(0, bytes)), count <= bytes else {
            throw ImageError(
                .badArchive, name: path,
                "has \(bytes) bytes after its header, expected those of the shape \(header.shape): truncated")
        }
        guard shape.height * shape.width <= limits.maximumPixels else {
            throw ImageError(
                .tooLarge, name: path,
                "\(shape.width)x\(shape.height) pixels; raise the limit with --max-megapixels")
        }
        let name = files.name(array)
        let isIndexed = isNamedByIndex || shape.count > 1
        return PixelArrays.Block(
            name: isIndexed && name.hasSuffix(".npy") ? String(name.dropLast(4)) : name, path: path,
            pixels: .volume(volume, header.size), count: shape.count, height: shape.height,
            width: shape.width, channels: shape.channels, isPlanar: shape.isPlanar, isIndexed: isIndexed)
    }

    private func open(_ array: FileSet.Entry) throws(ImageError) -> (volume: Volume, header: NumpyHeader) {
        let path = files.path(array)
        let container = files.containers[Int(array.container)]
        let volume: Volume
        if let found = try files.volume(array) {
            volume = found
        } else if case .zip(let zip, _) = container.kind, let spool,
            let range = spool.parts[.member(zip.members[array.place].name, archive: container.path)]
        {
            volume = Volume.file(spool.file).part(range, name: path)
        } else {
            throw ImageError(
                .badArchive, name: path, "is compressed; decompress the archive and use the result")
        }
        let start = try volume.read(at: 0, count: min(NumpyHeader.usualBytes, volume.size))
        do throws(StatisticsError) {
            return (volume, try NumpyHeader(start, path))
        } catch {
            throw ImageError(.badArchive, name: path, String(error.message.dropFirst(path.count + 2)))
        }
    }

    // MARK: Labels

    /// The labels of an array of integers of [N] or [N, 1].
    private func values(_ array: FileSet.Entry, count: Int) throws(ImageError) -> [Int32] {
        let (volume, header) = try open(array)
        let path = files.path(array)
        let sizes = ["|u1": 1, "|i1": 1, "<u2": 2, "<i2": 2, "<u4": 4, "<i4": 4, "<u8": 8, "<i8": 8]
        guard let size = sizes[header.type], header.shape == [count] || header.shape == [count, 1] else {
            throw ImageError(
                .badArchive, name: path,
                "has labels of type \(header.type) and shape \(header.shape); expected integers of [\(count)]"
            )
        }
        let bytes = try volume.read(at: header.size, count: size * count)
        var labels: [Int32] = []
        labels.reserveCapacity(count)
        for index in 0..<count {
            let value = bytes[size * index..<size * (index + 1)].reversed().reduce(UInt64(0)) {
                $0 << 8 | UInt64($1)
            }
            guard let label = Int32(exactly: value) else {
                throw ImageError(
                    .badArchive, name: path, "label \(index) is negative or above \(Int32.max)")
            }
            labels.append(label)
        }
        return labels
    }
}
