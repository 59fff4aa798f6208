import Foundation
import Imaging

/// A collection of images in a fixed order: the input of `prepare`.
///
/// The order and the item names depend only on the content, so an index refers to the same image on every
/// rank and host. All members may be called from several threads at once.
package protocol ImageSource: Sendable {
    /// The source's name in messages: the path or specification it was opened with.
    var name: String { get }
    /// The number of items, including damaged ones that ``image(at:)`` cannot decode.
    var count: Int { get }
    /// Files that were skipped because of `skipBad`, as they are not images.
    var skipped: [String] { get }
    /// A hash of the content that is identical on all hosts.
    var fingerprint: String { get }
    /// The fingerprint by the rule of earlier versions, which checkpoints and prepared folders may contain.
    var sampledFingerprint: String { get }
    /// The stored bytes that the fingerprint covers; nil if nothing is stored.
    var content: SourceContent? { get }

    /// The decoded image at its original size. Throws an error that names the item if it cannot be decoded.
    func image(at index: Int) throws(ImageError) -> Image
    /// The item's path inside the source, unique within it.
    func itemName(at index: Int) -> String
    /// Width and height of the decoded image, from its header only; nil if it cannot be decoded.
    func size(at index: Int) throws(ImageError) -> (width: Int, height: Int)?
    /// The item's class by the source's own labels; nil if it has none.
    ///
    /// - Throws: if the label is in a file that cannot be read.
    func label(at index: Int) throws(ImageError) -> String?
    /// What the labels come from.
    var labelOrigin: LabelOrigin { get }
}

extension ImageSource {
    package var skipped: [String] { [] }
    package var fingerprint: String { content?.fingerprint ?? "" }
    package var sampledFingerprint: String { content?.sampledFingerprint ?? fingerprint }
    package func label(at index: Int) throws(ImageError) -> String? { nil }
    package var labelOrigin: LabelOrigin { .none }
}

/// Opens an image source as specified by the user.
///
/// - `synthetic-faces` or `synthetic-faces:COUNT`: generated faces;
/// - a folder of images, of archives, of `.npy` arrays, or of CIFAR's batches;
/// - a tar archive, compressed or not, or a zip archive, or a folder inside one: `faces.zip/images`;
/// - an `.npy` or `.npz` file;
/// - several files by braces and wildcards: `shards/{00..07}.tar`;
/// - `-`: a tar archive from standard input, with ``SharedSources`` alone.
///
/// - Parameters:
///   - size: side of generated faces in pixels; real images keep their own size.
///   - seed: seed of generated faces.
///   - skipBad: skip files that are not images, instead of rejecting the source.
///   - limits: larger images are rejected when they are decoded.
package func openImageSource(
    _ specification: String, size: Int = 64, seed: UInt64 = 0, skipBad: Bool = false,
    limits: ImageLimits = .standard
) throws(ImageError) -> any ImageSource {
    if let faces = try SyntheticFacesSource.open(specification, size: size, seed: seed) { return faces }
    let input = try SourceInput(specification, allowsStandardInput: false)
    let spool = input.spooled.isEmpty ? nil : try Spool(input.spooled)
    return try openImageSource(input, spool, skipBad: skipBad, limits: limits)
}

/// - Parameter spool: contains the input's spooled parts.
func openImageSource(
    _ input: SourceInput, _ spool: Spool?, skipBad: Bool, limits: ImageLimits
) throws(ImageError) -> any ImageSource {
    let files = try input.open(spool, skipBad: skipBad)
    if let batches = try CIFARBatches.open(files, name: input.name) { return batches }
    if !files.entries.contains(where: { ItemNames.isImage($0.name) }),
        files.entries.contains(where: { $0.name.hasSuffix(".npy") })
    {
        return try openArrays(files, spool, name: input.name, limits: limits, skipBad: skipBad)
    }
    return try ImageFiles(consume files, name: input.name, skipBad: skipBad, limits: limits)
}

extension SyntheticFacesSource {
    /// Faces by their specification, `synthetic-faces:COUNT`; nil if it names something else.
    fileprivate static func open(
        _ specification: String, size: Int, seed: UInt64
    ) throws(ImageError) -> SyntheticFacesSource? {
        let parts = specification.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts[0] == "synthetic-faces" else { return nil }
        guard let count = parts.count == 1 ? defaultCount : Int(parts[1]), count > 0
        else {
            throw ImageError(
                .unknownSource, name: specification,
                "\"\(parts[1])\" is not a number of faces; expected synthetic-faces:COUNT, for example "
                    + "synthetic-faces:6000")
        }
        guard size >= Image.minimumSide else {
            throw ImageError(
                .tooSmall, name: specification,
                "faces of \(size) pixels; expected at least \(Image.minimumSide)")
        }
        return SyntheticFacesSource(count: count, size: size, seed: seed)
    }
}

/// Rules shared by folders and archives: which names are images, and how other files are handled.
package enum ItemNames {
    package static func isImage(_ path: String) -> Bool {
        let name = path.utf8.suffix(5).map { $0 | 0x20 }
        return [".png", ".jpg"].contains { name.suffix(4).elementsEqual($0.utf8) }
            || [".jpeg", ".webp"].contains { name.elementsEqual($0.utf8) }
    }

    /// Whether a file is an archive of images by its name.
    static func isArchive(_ path: String) -> Bool {
        let name = file(path).lowercased()
        let compressed = ["", ".gz", ".zst", ".xz", ".bz2"]
        return compressed.contains { name.hasSuffix(".tar" + $0) }
            || [".tgz", ".tzst", ".txz", ".zip", ".npz"].contains { name.hasSuffix($0) }
    }

    /// Whether a file describes archives next to it, as written by WebDataset and img2dataset.
    static func isDescription(_ path: String) -> Bool {
        [".json", ".txt", ".md", ".csv", ".parquet", ".idx", ".index"].contains { path.hasSuffix($0) }
    }

    /// The part of a path after its last slash.
    static func file(_ path: String) -> String {
        path.utf8.lastIndex(of: UInt8(ascii: "/")).map { String(path[path.utf8.index(after: $0)...]) } ?? path
    }

    /// A path without the extension of the file.
    static func stem(_ path: String) -> Substring {
        let start = path.utf8.lastIndex(of: UInt8(ascii: "/")) ?? path.startIndex
        return path[..<(path.utf8[start...].lastIndex(of: UInt8(ascii: ".")) ?? path.endIndex)]
    }

    /// Whether a member of an archive is the file or in the folder `inner`; true if that is nil. An array of an
    /// .npz file is also named without `.npy`.
    static func isInside(_ name: String, _ inner: String?) -> Bool {
        guard let inner else { return true }
        return name == inner || name.hasPrefix(inner + "/") || name == inner + ".npy"
    }

    /// Whether a file or folder belongs to an operating system or storage server rather than the dataset:
    /// hidden ones (`.DS_Store`, `._a.jpg`, `.AppleDouble`), and those in ``systemNames``.
    static func isHidden(_ fileName: some StringProtocol) -> Bool {
        fileName.hasPrefix(".") || systemNames.contains(fileName.lowercased())
    }

    /// In lower case: macOS archives, Windows, thumbnails of Synology and QNAP, recycle bins, ext4.
    private static let systemNames: Set<String> = [
        "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information",
        "@eadir", "#recycle", "@recycle", "#snapshot", "lost+found",
    ]

    /// Bytewise order, independent of the locale.
    static func precedes(_ a: String, _ b: String) -> Bool { a.utf8.lexicographicallyPrecedes(b.utf8) }

    /// The name of the folder that contains the item.
    static func label(_ path: String) -> String? {
        guard let end = path.utf8.lastIndex(of: UInt8(ascii: "/")) else { return nil }
        let folder = path[..<end]
        let start = folder.utf8.lastIndex(of: UInt8(ascii: "/")).map { folder.utf8.index(after: $0) }
        let name = folder[(start ?? folder.startIndex)...]
        return name.isEmpty ? nil : String(name)
    }

    /// Throws if the source has no images, or if it has other files and `skipBad` is false.
    static func check(name: String, images: Int, others: [String], skipBad: Bool) throws(ImageError) {
        let examples = others.prefix(3).joined(separator: ", ") + (others.count > 3 ? ", ..." : "")
        let conversion = ForeignFormat.conversion(of: others)
        if images == 0 {
            let found = others.isEmpty ? "nothing" : "\(others.count) other files (\(examples))"
            throw ImageError(
                .empty, name: name,
                "no images: found \(found); \(conversion ?? "expected .png, .jpg, .jpeg or .webp files")")
        }
        if !others.isEmpty && !skipBad {
            let files =
                others.count == 1
                ? "1 file that is not an image" : "\(others.count) files that are not images"
            throw ImageError(
                .mixed, name: name,
                "\(files) among \(images) images (\(examples)); \(conversion ?? "remove them"), or skip them with "
                    + "--skip-bad"
            )
        }
    }
}
