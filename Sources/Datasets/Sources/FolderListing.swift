import Foundation
import Imaging

/// Lists the files of a folder and its subfolders. Links are followed; hidden files and folders are ignored.
struct FolderListing {
    let root: String
    /// In no particular order.
    private(set) var files: [FileSet.Entry] = []
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

    init(_ root: String) throws(ImageError) {
        self.root = root
        try add("")
    }

    private mutating func add(_ relative: String) throws(ImageError) {
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
            } else {
                files.append(
                    FileSet.Entry(
                        name: path, size: found ? Int(status.st_size) : 0, place: 0, container: 0))
            }
        }
    }

    private static func failure(_ folder: String, _ what: String) -> ImageError {
        let code = errno
        return ImageError(
            .inaccessible, name: folder, "\(what): \(String(cString: strerror(code)))", code: code)
    }
}
