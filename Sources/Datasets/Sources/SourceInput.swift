import FileFormats
import Foundation
import Imaging
import Support

/// What a source that the user named consists of, before archives are opened.
struct SourceInput: Sendable {
    enum Place: Sendable {
        case folder(FolderListing)
        /// Archives and arrays, and single batches of CIFAR.
        case files([String])
        case standardInput
    }

    let name: String
    let place: Place
    /// A folder or file inside the archive: the rest of a path such as `faces.zip/images`.
    let inner: String?
    /// What has to be decompressed or copied before it can be read at any position.
    let spooled: [Spool.Part]

    /// Finds out what the source is. Reads folders, and the beginning of files.
    init(_ specification: String, allowsStandardInput: Bool) throws(ImageError) {
        name = specification
        if specification == "-" {
            guard allowsStandardInput else {
                throw ImageError(
                    .unknownSource, name: specification,
                    "only `prepare` reads from standard input; prepare the images "
                        + "first, and use the prepared folder")
            }
            (place, inner, spooled) = (.standardInput, nil, [.standardInput])
            return
        }
        var status = stat()
        let isFound = stat(specification, &status) == 0
        let code = errno
        if isFound {
            if status.st_mode & S_IFMT == S_IFDIR {
                let listing = try FolderListing(specification)
                place = Self.shards(listing).map { .files($0) } ?? .folder(listing)
                inner = nil
            } else {
                (place, inner) = (.files([specification]), nil)
            }
        } else if SourcePattern.recognizes(specification) {
            (place, inner) = (.files(try SourcePattern.expand(specification)), nil)
        } else {
            let found = try Self.archive(specification, code: code)
            (place, inner) = (.files([found.path]), found.inner)
        }
        guard case .files(let paths) = place else {
            spooled = []
            return
        }
        var parts: [Spool.Part] = []
        for path in paths { parts += try Self.spooled(path, inner: inner) }
        spooled = parts
    }

    /// The archives of a folder that has nothing else to prepare, such as the shards of WebDataset; nil for a
    /// folder of images.
    private static func shards(_ listing: FolderListing) -> [String]? {
        // Most folders of images are recognised by their first file.
        let isShards =
            listing.files.allSatisfy { ItemNames.isArchive($0.name) || ItemNames.isDescription($0.name) }
            && listing.files.contains { ItemNames.isArchive($0.name) }
        guard isShards else { return nil }
        return listing.files.map(\.name).filter(ItemNames.isArchive).sorted(by: ItemNames.precedes)
            .map { listing.root.hasSuffix("/") ? listing.root + $0 : "\(listing.root)/\($0)" }
    }

    /// Splits a path that continues inside an archive.
    ///
    /// - Parameter code: why the path itself cannot be examined.
    private static func archive(
        _ path: String, code: Int32
    ) throws(ImageError) -> (path: String, inner: String) {
        let parts = path.split(separator: "/", omittingEmptySubsequences: false)
        var status = stat()
        for count in stride(from: parts.count - 1, to: 0, by: -1) {
            let parent = parts[..<count].joined(separator: "/")
            if parent.isEmpty || stat(parent, &status) != 0 { continue }
            guard status.st_mode & S_IFMT == S_IFREG else { break }
            let inner = parts[count...].filter { !$0.isEmpty }.joined(separator: "/")
            if inner.isEmpty { break }
            return (parent, inner)
        }
        throw ImageError(
            .inaccessible, name: path,
            "\(String(cString: strerror(code))); expected a folder or archive of images, arrays (.npy, .npz), CIFAR "
                + "batches, or synthetic-faces:COUNT", code: code)
    }

    private static func spooled(_ path: String, inner: String?) throws(ImageError) -> [Spool.Part] {
        let file = try ReadOnlyFile(path)
        if try Compression(of: file) != nil { return [.archive(path)] }
        // Arrays are read at any position; images in other zip archives are decompressed one by one.
        guard path.lowercased().hasSuffix(".npz"),
            try ZipFile.recognizes(file.read(at: 0, count: min(4, file.size)))
        else { return [] }
        return try openZip(.file(file)).members.filter { member in
            member.method != 0 && member.name.hasSuffix(".npy") && ItemNames.isInside(member.name, inner)
        }
        .map { .member($0.name, archive: path) }
    }

    // MARK: Opening

    /// The source's files.
    func open(_ spool: Spool?, skipBad: Bool) throws(ImageError) -> FileSet {
        let pool = OpenShards()
        var set = FileSet(files: pool)
        switch place {
        case .folder(let listing): set = FileSet(listing, files: pool)
        case .standardInput:
            guard let range = spool?.parts[.standardInput], let file = spool?.file else {
                throw ImageError(.inaccessible, name: name, "standard input has not been read")
            }
            try set.add(
                archive: Volume.file(file).part(range, name: standardInputName), inner: nil, prefix: "",
                skipBad: skipBad)
        case .files(let paths):
            let common = Self.commonFolder(paths)
            for path in paths {
                let prefix = paths.count == 1 ? "" : "\(path.dropFirst(common.count))/"
                try add(path, to: &set, spool, prefix: prefix, skipBad: skipBad)
            }
        }
        return set
    }

    private func add(
        _ path: String, to set: inout FileSet, _ spool: Spool?, prefix: String, skipBad: Bool
    ) throws(ImageError) {
        let volume: Volume
        if let spool, let range = spool.parts[.archive(path)] {
            volume = Volume.file(spool.file).part(range, name: path)
        } else {
            volume = try .path(path, set.files)
        }
        let start = try volume.read(at: 0, count: min(8, volume.size))
        let isFile = NumpyHeader.recognizes(start) || CIFARBatches.isBatch(path)
        guard isFile else {
            guard volume.size >= 2 else {
                throw ImageError(
                    .badArchive, name: path, "\(volume.size) bytes; expected an archive of images")
            }
            return try set.add(archive: volume, inner: inner, prefix: prefix, skipBad: skipBad)
        }
        guard inner == nil else {
            throw ImageError(.inaccessible, name: name, "\(path) is a file without members")
        }
        // The file's own name distinguishes it.
        set.add(
            file: path, size: volume.size, prefix: String(prefix.dropLast(ItemNames.file(path).count + 1)))
    }

    /// The folder that contains all files, with its slash.
    private static func commonFolder(_ paths: [String]) -> String {
        guard var common = paths.first else { return "" }
        for path in paths.dropFirst() {
            while !path.hasPrefix(common) { common.removeLast() }
        }
        return common.lastIndex(of: "/").map { String(common[...$0]) } ?? ""
    }
}
