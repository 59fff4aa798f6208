import FileFormats
import Foundation
import Imaging

/// A regular file in a tar archive.
struct TarMember {
    let name: String
    /// Offset of its bytes in the uncompressed archive.
    let offset: Int
    let size: Int
}

/// Lists the regular files of a tar archive with their places, so that they can be read in any order.
///
/// - Parameter skipBad: for a truncated archive, return the complete members and describe the error in
///   `cutShort`.
func listTar(
    _ file: Volume, skipBad: Bool
) throws(ImageError) -> (members: [TarMember], cutShort: String?) {
    var members: [TarMember] = []
    /// The end of the last member, where the next header or the end-of-archive mark begins.
    var end = 0

    func cutShort(_ detail: String) throws(ImageError) -> (members: [TarMember], cutShort: String?) {
        if skipBad && !members.isEmpty { return (members, "(the archive is truncated: \(detail))") }
        throw ImageError(
            .badArchive, name: file.name,
            "the archive is truncated: \(detail), after \(members.count) whole files")
    }

    do {
        let reader = try ArchiveReader(.tar, size: file.size) { try file.read(at: $0, count: $1) }
        while let member = try reader.next() {
            guard member.size <= file.size - member.offset else {
                return try cutShort(
                    "\(member.name) needs \(member.size) bytes, but only \(file.size - member.offset) are left"
                )
            }
            end = member.offset + (member.size + 511) / 512 * 512
            guard member.isFile, !member.name.isEmpty else { continue }
            members.append(TarMember(name: member.name, offset: member.offset, size: member.size))
        }
        guard end + 512 <= file.size, try file.read(at: end, count: 512).allSatisfy({ $0 == 0 }) else {
            return try cutShort("no end-of-archive mark at byte \(file.size)")
        }
        return (members, nil)
    } catch let error as ImageError {
        throw error
    } catch let error as ArchiveError {
        if members.isEmpty, end == 0 {
            throw ImageError(
                .badArchive, name: file.name,
                "not a tar archive (\(error.detail)); expected a folder, a .tar or .zip archive, or .npy or .npz arrays"
            )
        }
        if end + 512 > file.size { return try cutShort("no end-of-archive mark at byte \(file.size)") }
        throw ImageError(
            .badArchive, name: file.name,
            "damaged archive: no valid tar header at byte \(end) (\(error.detail))")
    } catch {
        throw ImageError(.badArchive, name: file.name, "\(error)")
    }
}
