import Foundation
import Imaging

/// The PNG, JPEG and WebP files of a `.tar`, `.tar.gz` or `.tgz`, in bytewise order of their names.
///
/// A compressed archive is decompressed once to an unlinked temporary file (in $TMPDIR, or /tmp), so that
/// items can be read in any order; ranks of one host share it, see ``SharedSources``. Compression is detected
/// by the first bytes, not by the name.
package struct TarSource: ImageSource {
    package let name: String
    package let skipped: [String]
    package let content: SourceContent?
    private let file: ReadOnlyFile
    private let members: [TarMember]
    private let limits: ImageLimits

    package init(_ path: String, skipBad: Bool = false, limits: ImageLimits = .standard) throws(ImageError) {
        try self.init(path, skipBad: skipBad, limits: limits, inflated: nil)
    }

    /// - Parameter inflated: the decompressed archive; nil to decompress it here.
    init(
        _ path: String, skipBad: Bool, limits: ImageLimits, inflated: ReadOnlyFile?
    ) throws(ImageError) {
        let onDisk = try ReadOnlyFile(path)
        guard onDisk.size >= 2 else {
            throw ImageError(
                .badArchive, name: path, "\(onDisk.size) bytes; expected a tar archive of images")
        }
        let file: ReadOnlyFile
        if let inflated {
            file = inflated
        } else {
            file = try Gzip.recognizes(onDisk) ? Gzip.inflate(onDisk) : onDisk
        }
        let listing = try listTar(file, skipBad: skipBad)

        // A later member replaces an earlier one of the same name, as in extraction.
        var latest: [String: TarMember] = [:]
        for member in listing.members { latest[member.name] = member }
        let visible = latest.values.filter { member in
            !member.name.split(separator: "/").contains { ItemNames.isHidden($0) }
        }
        let members = visible.filter { ItemNames.isImage($0.name) }
            .sorted { ItemNames.precedes($0.name, $1.name) }
        var others = visible.filter { !ItemNames.isImage($0.name) }.map(\.name).sorted(by: ItemNames.precedes)
        if others.contains(where: { $0.hasSuffix("data_batch_1.bin") }) {
            throw ImageError(
                .mixed, name: path,
                "CIFAR-10 batches in an archive; unpack it, and use the folder with the .bin files")
        }
        try ItemNames.check(name: path, images: members.count, others: others, skipBad: skipBad)
        if let cutShort = listing.cutShort { others.append(cutShort) }
        name = path
        skipped = others
        (self.file, self.members, self.limits) = (file, members, limits)
        content = SourceContent(
            count: members.count, name: { members[$0].name }, size: { members[$0].size },
            read: { index, body throws(ImageError) in
                let member = members[index]
                // Larger members are rejected when they are decoded.
                if member.size <= limits.maximumFileBytes { try file.readPieces(of: member.range, body) }
            })
    }

    package var count: Int { members.count }
    package func itemName(at index: Int) -> String { members[index].name }
    package func label(at index: Int) -> String? { ItemNames.label(members[index].name) }

    package func image(at index: Int) throws(ImageError) -> Image {
        try Image.decode(stored(index), name: "\(name):\(members[index].name)", limits: limits)
    }

    package func size(at index: Int) throws(ImageError) -> (width: Int, height: Int)? {
        Image.size(of: try stored(index))
    }

    private func stored(_ index: Int) throws(ImageError) -> [UInt8] {
        try file.image(members[index].range, name: "\(name):\(members[index].name)", limits: limits)
    }
}
