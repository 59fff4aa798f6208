import FileFormats
import Foundation
import Imaging
import Support

/// A file, or a range of one, that can be read at any position from several threads.
struct Volume: Sendable {
    /// For messages.
    let name: String
    let size: Int
    private let start: Int
    private let place: Place

    private enum Place: Sendable {
        case open(ReadOnlyFile)
        /// Opened when it is read, because a process can only keep some files open.
        case path(String, OpenShards)
    }

    static func file(_ file: ReadOnlyFile) -> Volume {
        Volume(name: file.name, size: file.size, start: 0, place: .open(file))
    }

    /// - Parameter files: keeps the file open for other readers.
    static func path(_ path: String, _ files: OpenShards) throws(ImageError) -> Volume {
        do throws(FileError) {
            return Volume(
                name: path, size: try files.file(path).size, start: 0, place: .path(path, files))
        } catch {
            throw ImageError(error)
        }
    }

    func part(_ range: Range<Int>, name: String) -> Volume {
        Volume(name: name, size: range.count, start: start + range.lowerBound, place: place)
    }

    func read(at offset: Int, count: Int) throws(ImageError) -> [UInt8] {
        guard offset >= 0, count >= 0, count <= size - offset else {
            throw ImageError(
                .badArchive, name: name,
                "has \(size) bytes, expected at least \(offset) + \(count): truncated or damaged")
        }
        switch place {
        case .open(let file): return try file.read(at: start + offset, count: count)
        case .path(let path, let files):
            do throws(FileError) {
                return try files.file(path).read(at: start + offset, count: count)
            } catch {
                throw ImageError(error)
            }
        }
    }

    func readPieces(
        of range: Range<Int>, _ body: (UnsafeRawBufferPointer) -> Void
    ) throws(ImageError) {
        for at in stride(from: range.lowerBound, to: range.upperBound, by: Self.piece) {
            try read(at: at, count: min(Self.piece, range.upperBound - at)).withUnsafeBytes { body($0) }
        }
    }

    private static let piece = 4 << 20
}

/// Opens a zip archive, and checks that no part of it is encrypted or expands like a decompression bomb.
func openZip(_ volume: Volume) throws(ImageError) -> ZipFile {
    let zip = try archiveErrors(volume.name) {
        try ZipFile(size: volume.size) { try volume.read(at: $0, count: $1) }
    }
    if let encrypted = zip.members.first(where: \.isEncrypted) {
        let count = zip.members.count(where: \.isEncrypted)
        throw ImageError(
            .badArchive, name: volume.name,
            "\(count) of its \(zip.members.count) members are encrypted (\(encrypted.name)); unzip it with its "
                + "password and use the folder")
    }
    let size = zip.members.reduce(0) { sum, member in
        let (total, overflows) = sum.addingReportingOverflow(member.size)
        return overflows ? .max : total
    }
    try Compression.checkRatio(size, of: volume.size, volume.name)
    return zip
}

/// Converts the errors of an archive's reader.
///
/// - Parameter name: of the archive or its member.
func archiveErrors<Value>(_ name: String, _ body: () throws -> Value) throws(ImageError) -> Value {
    do {
        return try body()
    } catch let error as ImageError {
        throw error
    } catch let error as FileError {
        throw ImageError(error)
    } catch let error as ArchiveError {
        throw ImageError(.badArchive, name: name, error.detail)
    } catch {
        throw ImageError(.badArchive, name: name, "\(error)")
    }
}
