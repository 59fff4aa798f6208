import Foundation

/// The PNG and JPEG files of a `.tar`, `.tar.gz` or `.tgz`, in the order of their names' bytes.
///
/// A compressed archive is inflated once into a temporary file without a name ($TMPDIR, or /tmp), so that items
/// can be read in any order; whether it is compressed is told by its first bytes, not by its name.
public struct TarSource: ImageSource {
    public let name: String
    public let skipped: [String]
    public let fingerprint: String
    private let file: ReadOnlyFile
    private let members: [TarMember]

    public init(_ path: String, skipBad: Bool = false) throws(ImageError) {
        let onDisk = try ReadOnlyFile(path)
        guard onDisk.size >= 2 else {
            throw ImageError(
                .badArchive, name: path, "\(onDisk.size) bytes; expected a tar archive of images")
        }
        let magic = try onDisk.read(at: 0, count: 2)
        let file = magic == [0x1F, 0x8B] ? try inflateGzip(path) : onDisk
        let listing = try listTar(file, skipBad: skipBad)

        // As when unpacking, a later member of the same name replaces the earlier one.
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
                "CIFAR-10 batches in an archive; unpack it, and name the folder with the .bin files")
        }
        try ItemNames.check(name: path, images: members.count, others: others, skipBad: skipBad)
        if let cutShort = listing.cutShort { others.append(cutShort) }
        name = path
        skipped = others
        self.file = file
        self.members = members
        fingerprint = SourceFingerprint.of(
            count: members.count, name: { members[$0].name }, size: { members[$0].size },
            bytes: { try? file.read(at: members[$0].offset, count: members[$0].size) })
    }

    public var count: Int { members.count }
    public func itemName(at index: Int) -> String { members[index].name }
    public func label(at index: Int) -> String? { ItemNames.label(members[index].name) }

    public func image(at index: Int) throws(ImageError) -> Image {
        let member = members[index]
        let bytes = try file.read(at: member.offset, count: member.size)
        return try Image.decode(bytes, name: "\(name):\(member.name)")
    }
}
