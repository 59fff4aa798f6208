import Foundation

/// The PNG and JPEG files of a folder and of the folders below it, in the order of their paths' bytes.
///
/// Links are followed. Hidden files are passed over; other files that are no images by their extension are an
/// error, or are left out and listed in ``skipped`` with `skipBad`.
public struct FolderSource: ImageSource {
    public let name: String
    public let skipped: [String]
    public let fingerprint: String
    private let paths: [String]

    public init(_ folder: String, skipBad: Bool = false) throws(ImageError) {
        var images: [(path: String, size: Int)] = []
        var others: [String] = []
        var open: [FolderIdentity] = []
        try Self.list(folder, "", &open, &images, &others)
        images.sort { ItemNames.precedes($0.path, $1.path) }
        others.sort(by: ItemNames.precedes)
        try ItemNames.check(name: folder, images: images.count, others: others, skipBad: skipBad)
        name = folder
        skipped = others
        paths = images.map(\.path)
        fingerprint = SourceFingerprint.of(
            count: images.count, name: { images[$0].path }, size: { images[$0].size },
            // A file that cannot be read is reported when its turn to be decoded comes.
            bytes: { try? ReadOnlyFile("\(folder)/\(images[$0].path)").readAll() })
    }

    public var count: Int { paths.count }
    public func itemName(at index: Int) -> String { paths[index] }
    public func label(at index: Int) -> String? { ItemNames.label(paths[index]) }
    public func image(at index: Int) throws(ImageError) -> Image { try Image.read("\(name)/\(paths[index])") }

    /// Identifies a folder whatever path led to it.
    private struct FolderIdentity: Equatable {
        let device: dev_t
        let inode: ino_t
    }

    /// - Parameter open: the folders above, so that a link to one of them is not followed for ever.
    private static func list(
        _ root: String, _ relative: String, _ open: inout [FolderIdentity],
        _ images: inout [(path: String, size: Int)], _ others: inout [String]
    ) throws(ImageError) {
        let folder = relative.isEmpty ? root : "\(root)/\(relative)"
        var status = stat()
        guard let directory = opendir(folder), stat(folder, &status) == 0 else {
            throw ImageError(.inaccessible, name: folder, "cannot list: \(String(cString: strerror(errno)))")
        }
        defer { closedir(directory) }
        let identity = FolderIdentity(device: status.st_dev, inode: status.st_ino)
        if open.contains(identity) { return }
        open.append(identity)
        defer { open.removeLast() }

        while let entry = readdir(directory) {
            let file = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if ItemNames.isHidden(file) { continue }
            let path = relative.isEmpty ? file : "\(relative)/\(file)"
            // A link that leads nowhere is counted as a file; decoding it says what is wrong.
            let found = stat("\(root)/\(path)", &status) == 0
            if found && status.st_mode & S_IFMT == S_IFDIR {
                try list(root, path, &open, &images, &others)
            } else if ItemNames.isImage(file) {
                images.append((path, found ? Int(status.st_size) : 0))
            } else {
                others.append(path)
            }
        }
    }
}
