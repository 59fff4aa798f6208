import Foundation
import Imaging

/// The PNG, JPEG and WebP files of a folder and its subfolders, in bytewise order of their paths.
///
/// Links are followed. Hidden files and folders are ignored. Other files without an image extension are an
/// error, or with `skipBad` are skipped and listed in ``skipped``.
package struct FolderSource: ImageSource {
    package let name: String
    package let skipped: [String]
    package let content: SourceContent?
    private let paths: [String]
    private let limits: ImageLimits

    package init(
        _ folder: String, skipBad: Bool = false, limits: ImageLimits = .standard
    ) throws(ImageError) {
        var listing = FolderListing(root: folder)
        try listing.add("")
        let images = listing.images.sorted { ItemNames.precedes($0.path, $1.path) }
        let others = listing.others.sorted(by: ItemNames.precedes)
        try ItemNames.check(name: folder, images: images.count, others: others, skipBad: skipBad)
        name = folder
        skipped = others
        paths = images.map(\.path)
        self.limits = limits
        content = SourceContent(
            count: images.count, name: { images[$0].path }, size: { images[$0].size },
            read: { index, body throws(ImageError) in
                let file = try ReadOnlyFile("\(folder)/\(images[index].path)")
                // Larger files are rejected when they are decoded.
                if file.size <= limits.maximumFileBytes { try file.readPieces(of: 0..<file.size, body) }
            })
    }

    package var count: Int { paths.count }
    package func itemName(at index: Int) -> String { paths[index] }
    package func label(at index: Int) -> String? { ItemNames.label(paths[index]) }
    package func image(at index: Int) throws(ImageError) -> Image {
        try Image.read("\(name)/\(paths[index])", limits: limits)
    }

    package func size(at index: Int) throws(ImageError) -> (width: Int, height: Int)? {
        Image.size(of: try ReadOnlyFile("\(name)/\(paths[index])").image(limits: limits))
    }
}

/// Traverses a folder and its subfolders.
private struct FolderListing {
    let root: String
    var images: [(path: String, size: Int)] = []
    var others: [String] = []
    /// The ancestors of the current folder, to detect link cycles.
    private var open: [Identity] = []
    /// Folders that have been traversed.
    private var known: Set<Identity> = []
    /// Number of folders traversed again through links.
    private var repeated = 0

    /// Links can multiply: twelve folders with ten links each to the next are 10¹² folders.
    private static let mostRepeated = 10_000
    private static let deepest = 128

    /// Identifies a folder independent of its path.
    private struct Identity: Hashable {
        let device: UInt64
        let inode: UInt64
    }

    init(root: String) { self.root = root }

    mutating func add(_ relative: String) throws(ImageError) {
        let folder = relative.isEmpty ? root : "\(root)/\(relative)"
        var status = stat()
        guard let directory = opendir(folder) else { throw Self.failure(folder, "cannot be listed") }
        defer { closedir(directory) }
        guard fstat(dirfd(directory), &status) == 0 else { throw Self.failure(folder, "cannot be examined") }
        let identity = Identity(device: UInt64(status.st_dev), inode: UInt64(status.st_ino))
        if open.contains(identity) { return }
        guard open.count < Self.deepest else {
            throw ImageError(.badArchive, name: root, "folders are nested deeper than \(Self.deepest) levels")
        }
        if !known.insert(identity).inserted { repeated += 1 }
        guard repeated <= Self.mostRepeated else {
            throw ImageError(
                .badArchive, name: root,
                "links lead back to the same folders more than \(Self.mostRepeated) times, last at \(relative); "
                    + "remove links to folders")
        }
        open.append(identity)
        defer { open.removeLast() }

        while true {
            errno = 0
            guard let entry = readdir(directory) else {
                if errno != 0 { throw Self.failure(folder, "cannot be listed") }
                return
            }
            let file = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if ItemNames.isHidden(file) { continue }
            let path = relative.isEmpty ? file : "\(relative)/\(file)"
            // A dangling link, a pipe or a device counts as a file; decoding it reports the error.
            let found = stat("\(root)/\(path)", &status) == 0
            if found && status.st_mode & S_IFMT == S_IFDIR {
                try add(path)
            } else if ItemNames.isImage(file) {
                images.append((path, found ? Int(status.st_size) : 0))
            } else {
                others.append(path)
            }
        }
    }

    private static func failure(_ folder: String, _ what: String) -> ImageError {
        let code = errno
        return ImageError(
            .inaccessible, name: folder, "\(what): \(String(cString: strerror(code)))", code: code)
    }
}
