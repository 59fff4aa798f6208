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
    /// The class: the name of the folder that contains the item, or the record's label; nil at the top level.
    func label(at index: Int) -> String?
}

extension ImageSource {
    package var skipped: [String] { [] }
    package var fingerprint: String { content?.fingerprint ?? "" }
    package var sampledFingerprint: String { content?.sampledFingerprint ?? fingerprint }
}

/// Opens an image source as specified by the user.
///
/// - `synthetic-faces` or `synthetic-faces:COUNT`: generated faces;
/// - a folder with CIFAR-10's `data_batch_*.bin` (or only `test_batch.bin`);
/// - any other folder: the PNG, JPEG and WebP files in it and its subfolders;
/// - a `.tar`, `.tar.gz` or `.tgz` file of PNG, JPEG and WebP files.
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
    try openImageSource(
        specification, size: size, seed: seed, skipBad: skipBad, limits: limits, inflated: nil)
}

/// - Parameter inflated: the decompressed archive, if the caller has it.
func openImageSource(
    _ specification: String, size: Int, seed: UInt64, skipBad: Bool, limits: ImageLimits,
    inflated: ReadOnlyFile?
) throws(ImageError) -> any ImageSource {
    let parts = specification.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
    if parts[0] == "synthetic-faces" {
        guard let count = parts.count == 1 ? SyntheticFacesSource.defaultCount : Int(parts[1]), count > 0
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
    var status = stat()
    guard stat(specification, &status) == 0 else {
        let code = errno
        throw ImageError(
            .inaccessible, name: specification,
            "\(String(cString: strerror(code))); expected a folder or tar archive of PNG, JPEG and WebP files, "
                + "a folder of CIFAR-10 batches, or synthetic-faces:COUNT", code: code)
    }
    if status.st_mode & S_IFMT == S_IFDIR {
        if CIFAR10BinarySource.recognizes(specification) { return try CIFAR10BinarySource(specification) }
        return try FolderSource(specification, skipBad: skipBad, limits: limits)
    }
    return try TarSource(specification, skipBad: skipBad, limits: limits, inflated: inflated)
}

/// Rules shared by folders and archives: which names are images, and how other files are handled.
enum ItemNames {
    static func isImage(_ path: String) -> Bool {
        let name = path.utf8.suffix(5).map { $0 | 0x20 }
        return [".png", ".jpg"].contains { name.suffix(4).elementsEqual($0.utf8) }
            || [".jpeg", ".webp"].contains { name.elementsEqual($0.utf8) }
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
        let parts = path.split(separator: "/")
        return parts.count > 1 ? String(parts[parts.count - 2]) : nil
    }

    /// Throws if the source has no images, or if it has other files and `skipBad` is false.
    static func check(name: String, images: Int, others: [String], skipBad: Bool) throws(ImageError) {
        let examples = others.prefix(3).joined(separator: ", ") + (others.count > 3 ? ", ..." : "")
        let remedy = ForeignFormat.conversion(of: others).map { "; \($0)" } ?? ""
        if images == 0 {
            let found = others.isEmpty ? "nothing" : "\(others.count) other files (\(examples))"
            throw ImageError(
                .empty, name: name,
                "no images: found \(found); expected .png, .jpg, .jpeg or .webp files\(remedy)")
        }
        if !others.isEmpty && !skipBad {
            let files =
                others.count == 1
                ? "1 file that is not an image" : "\(others.count) files that are not images"
            throw ImageError(
                .mixed, name: name,
                "\(files) among \(images) images (\(examples)); remove them, or skip them with --skip-bad\(remedy)"
            )
        }
    }
}
