import FileFormats
import Foundation
import Imaging
import Support

/// The files of a source by name: those of a folder or of archives. They can be read in any order and from
/// several threads, without unpacking them.
struct FileSet: Sendable {
    /// One file. There may be millions.
    struct Entry: Sendable {
        /// The path inside its container.
        let name: String
        let size: Int
        /// The place in its container: the offset in a tar archive, or the index in a zip's directory.
        let place: Int
        let container: Int32
    }

    /// A folder or an archive.
    struct Container: Sendable {
        enum Kind: Sendable {
            case folder
            case tar(Volume)
            case zip(ZipFile, Volume)
        }

        let path: String
        let kind: Kind
        /// Distinguishes the items of several archives: `00001.tar/`. Empty if there is only one.
        let prefix: String
    }

    private(set) var entries: [Entry] = []
    private(set) var containers: [Container] = []
    /// Descriptions of what cannot be read, which `skipBad` skipped.
    private(set) var skipped: [String] = []
    /// Files that are open at once.
    let files: OpenShards

    /// - Parameter files: the pool of open files of the source.
    init(files: OpenShards) { self.files = files }

    /// - Parameter files: the pool of open files of the source.
    init(_ folder: FolderListing, files: OpenShards) {
        self.files = files
        entries = folder.files
        containers = [Container(path: folder.root, kind: .folder, prefix: "")]
    }

    // MARK: Adding files

    /// A single file, which is not an archive.
    mutating func add(file path: String, size: Int, prefix: String) {
        let parts = path.split(separator: "/", omittingEmptySubsequences: false)
        let folder = parts.dropLast().joined(separator: "/")
        let parent = path.hasPrefix("/") && folder.isEmpty ? "/" : folder.isEmpty ? "." : folder
        containers.append(Container(path: parent, kind: .folder, prefix: prefix))
        entries.append(
            Entry(
                name: String(parts.last ?? ""), size: size, place: 0, container: Int32(containers.count - 1)))
    }

    /// Adds the regular files of an archive.
    ///
    /// - Parameters:
    ///   - inner: use only this folder or file of it; names are relative to it.
    ///   - skipBad: skip what is refused otherwise: names with `..`, and the missing end of a truncated archive.
    mutating func add(
        archive volume: Volume, inner: String?, prefix: String, skipBad: Bool
    ) throws(ImageError) {
        let container = Int32(containers.count)
        var found: [Entry] = []
        if try ZipFile.recognizes(volume.read(at: 0, count: min(4, volume.size))) {
            let zip = try openZip(volume)
            containers.append(Container(path: volume.name, kind: .zip(zip, volume), prefix: prefix))
            for (index, member) in zip.members.enumerated() where member.isFile {
                found.append(Entry(name: member.name, size: member.size, place: index, container: container))
            }
        } else {
            let listing = try listTar(volume, skipBad: skipBad)
            containers.append(Container(path: volume.name, kind: .tar(volume), prefix: prefix))
            found = listing.members.map {
                Entry(name: $0.name, size: $0.size, place: $0.offset, container: container)
            }
            if let cutShort = listing.cutShort { skipped.append(prefix + cutShort) }
        }
        entries += try latest(found, in: volume, inner: inner, skipBad: skipBad)
    }

    /// The members with plain names. A later member replaces an earlier one of the same name, as in extraction.
    private mutating func latest(
        _ members: [Entry], in volume: Volume, inner: String?, skipBad: Bool
    ) throws(ImageError) -> [Entry] {
        var result: [Entry] = []
        var places: [String: Int] = [:]
        var isInside = inner == nil
        for member in members {
            let parts = member.name.utf8.split(separator: UInt8(ascii: "/")).filter {
                !$0.elementsEqual(".".utf8)
            }
            if parts.contains(where: { $0.elementsEqual("..".utf8) }) {
                guard skipBad else {
                    throw ImageError(
                        .badArchive, name: volume.name,
                        "contains \(member.name), a path that leads out of it; make the archive again without such "
                            + "names, or skip them with --skip-bad")
                }
                skipped.append(member.name)
                continue
            }
            var name = parts.map { String($0) ?? "" }.joined(separator: "/")
            // Most names are plain; share their memory.
            if name == member.name { name = member.name }
            if let inner {
                guard ItemNames.isInside(name, inner) else { continue }
                isInside = true
                let isFolder = name.hasPrefix(inner + "/")
                name = isFolder ? String(name.dropFirst(inner.count + 1)) : ItemNames.file(name)
            }
            let isHidden = parts.contains { ItemNames.isHidden(String($0) ?? "") }
            guard !isHidden, !name.isEmpty else { continue }
            let entry = Entry(
                name: name, size: member.size, place: member.place, container: member.container)
            if let earlier = places.updateValue(result.count, forKey: name) {
                places[name] = earlier
                result[earlier] = entry
            } else {
                result.append(entry)
            }
        }
        guard isInside else {
            let folders = Set(members.compactMap { $0.name.split(separator: "/").first.map(String.init) })
            throw ImageError(
                .inaccessible, name: "\(volume.name)/\(inner ?? "")",
                "no such file or folder in the archive; it contains \(shortList(folders.sorted()))")
        }
        return result
    }

    /// Returns the entries, which this set does not need to read them.
    mutating func takeEntries() -> [Entry] {
        defer { entries = [] }
        return entries
    }

    // MARK: Reading

    /// The name of an item: unique in the source.
    func name(_ entry: Entry) -> String {
        let prefix = containers[Int(entry.container)].prefix
        return prefix.isEmpty ? entry.name : prefix + entry.name
    }

    /// The name for messages.
    func path(_ entry: Entry) -> String {
        let container = containers[Int(entry.container)]
        if case .folder = container.kind { return filePath(entry, container) }
        return "\(container.path):\(entry.name)"
    }

    private func filePath(_ entry: Entry, _ container: Container) -> String {
        container.path.hasSuffix("/") ? container.path + entry.name : "\(container.path)/\(entry.name)"
    }

    /// The bytes of an image; see `ReadOnlyFile.image`.
    func image(_ entry: Entry, limits: ImageLimits) throws(ImageError) -> [UInt8] {
        let container = containers[Int(entry.container)]
        if case .folder = container.kind {
            return try ReadOnlyFile(filePath(entry, container)).image(limits: limits)
        }
        try limits.check(fileBytes: entry.size, name: path(entry))
        return try content(entry)
    }

    /// All bytes of a file. The caller has checked its size.
    func content(_ entry: Entry) throws(ImageError) -> [UInt8] {
        let container = containers[Int(entry.container)]
        switch container.kind {
        case .folder:
            let file = try ReadOnlyFile(filePath(entry, container))
            return try file.readAll(limit: max(entry.size, 1 << 20))
        case .tar(let volume): return try volume.read(at: entry.place, count: entry.size)
        case .zip(let zip, _):
            return try archiveErrors(path(entry)) { try zip.content(of: zip.members[entry.place]) }
        }
    }

    /// Calls `body` with the bytes of a file in pieces.
    ///
    /// - Parameter limit: a longer file is not read.
    func readPieces(
        _ entry: Entry, limit: Int, _ body: (UnsafeRawBufferPointer) -> Void
    ) throws(ImageError) {
        let container = containers[Int(entry.container)]
        switch container.kind {
        case .folder:
            let file = try ReadOnlyFile(filePath(entry, container))
            if file.size <= limit { try file.readPieces(of: 0..<file.size, body) }
        case .tar(let volume):
            guard entry.size <= limit else { return }
            try volume.readPieces(of: entry.place..<entry.place + entry.size, body)
        case .zip(let zip, _):
            guard entry.size <= limit else { return }
            try archiveErrors(path(entry)) { try zip.readPieces(of: zip.members[entry.place], body) }
        }
    }

    /// The file as bytes that can be read at any position; nil if it is a deflated member of a zip archive.
    func volume(_ entry: Entry) throws(ImageError) -> Volume? {
        let container = containers[Int(entry.container)]
        switch container.kind {
        case .folder: return try .path(filePath(entry, container), files)
        case .tar(let volume):
            return volume.part(entry.place..<entry.place + entry.size, name: path(entry))
        case .zip(let zip, let volume):
            let member = zip.members[entry.place]
            guard member.method == 0, member.size == member.storedSize else { return nil }
            let range = try archiveErrors(path(entry)) { try zip.range(of: member) }
            return volume.part(range, name: path(entry))
        }
    }
}
