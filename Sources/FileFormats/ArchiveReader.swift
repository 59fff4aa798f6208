import CArchive
import Foundation

/// Why an archive cannot be read, in libarchive's words.
package struct ArchiveError: Error {
    package let detail: String
}

/// Reads the members of a tar archive in their order, or decompresses a file, with libarchive.
package final class ArchiveReader {
    package enum Format {
        /// An uncompressed tar archive.
        case tar
        /// A file compressed with zstd, xz or bzip2: an archive of one member.
        case compressed
    }

    package struct Member: Equatable {
        package let name: String
        package let size: Int
        /// Whether it is a regular file whose bytes are stored in one piece.
        package let isFile: Bool
        /// Offset of its bytes in a tar archive.
        package let offset: Int
    }

    private let archive: OpaquePointer
    private let source: Source

    /// - Parameters:
    ///   - size: of the archive in bytes.
    ///   - read: returns as many bytes at an offset as asked for; its errors are rethrown by `next` and `read`.
    package init(
        _ format: Format, size: Int, read: @escaping (_ offset: Int, _ count: Int) throws -> [UInt8]
    ) throws {
        archive = archive_read_new()
        source = Source(size: size, read: read)
        switch format {
        case .tar: archive_read_support_format_tar(archive)
        case .compressed:
            archive_read_support_format_raw(archive)
            archive_read_support_filter_zstd(archive)
            archive_read_support_filter_xz(archive)
            archive_read_support_filter_bzip2(archive)
        }
        archive_read_set_read_callback(archive) { _, context, out in
            let source = Source.of(context)
            out?.pointee = UnsafeRawPointer(source.block.baseAddress)
            return source.readBlock()
        }
        archive_read_set_skip_callback(archive) { _, context, count in
            Int64(Source.of(context).move(by: Int(count)))
        }
        archive_read_set_seek_callback(archive) { _, context, offset, origin in
            Int64(Source.of(context).seek(Int(offset), origin))
        }
        archive_read_set_callback_data(archive, Unmanaged.passUnretained(source).toOpaque())
        let status = UTF8Locale.during { archive_read_open1(archive) }
        if status != ARCHIVE_OK { throw failure() }
    }

    deinit { archive_read_free(archive) }

    /// The next member; nil at the end of the archive.
    package func next() throws -> Member? {
        var entry: OpaquePointer?
        let status = UTF8Locale.during { archive_read_next_header(archive, &entry) }
        if status == ARCHIVE_EOF { return nil }
        guard status == ARCHIVE_OK || status == ARCHIVE_WARN, let entry else { throw failure() }
        let size = Int(archive_entry_size(entry))
        // libarchive returns what a pax record says.
        if size < 0 { throw ArchiveError(detail: "a member of \(size) bytes") }
        let isRegular = archive_entry_filetype(entry) & 0o170000 == 0o100000
        let isWhole = archive_entry_hardlink(entry) == nil && archive_entry_sparse_count(entry) == 0
        return Member(
            name: archive_entry_pathname(entry).map { String(cString: $0) } ?? "",
            size: size, isFile: isRegular && isWhole,
            offset: Int(archive_filter_bytes(archive, 0)))
    }

    /// Reads the next bytes of the member that `next` returned last.
    ///
    /// - Returns: the number of bytes; 0 at the end.
    package func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
        let count = archive_read_data(archive, buffer.baseAddress, buffer.count)
        if count < 0 { throw failure() }
        return count
    }

    private func failure() -> any Error {
        source.failure
            ?? ArchiveError(detail: archive_error_string(archive).map { String(cString: $0) } ?? "damaged")
    }
}

/// What libarchive's callbacks read from.
private final class Source {
    let size: Int
    let read: (Int, Int) throws -> [UInt8]
    let block = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 16, alignment: 64)
    var failure: (any Error)?
    private var position = 0

    init(size: Int, read: @escaping (Int, Int) throws -> [UInt8]) { (self.size, self.read) = (size, read) }

    deinit { block.deallocate() }

    static func of(_ context: UnsafeMutableRawPointer?) -> Source {
        Unmanaged<Source>.fromOpaque(context!).takeUnretainedValue()
    }

    /// - Returns: the number of bytes in `block`; 0 at the end, -1 for an error.
    func readBlock() -> Int {
        let count = min(block.count, size - position)
        if count == 0 { return 0 }
        do {
            let bytes = try read(position, count)
            block.copyBytes(from: bytes)
            position += bytes.count
            return bytes.count
        } catch {
            failure = error
            return -1
        }
    }

    /// - Returns: the number of skipped bytes.
    func move(by count: Int) -> Int {
        let skipped = max(0, min(count, size - position))
        position += skipped
        return skipped
    }

    /// - Returns: the new position.
    func seek(_ offset: Int, _ origin: Int32) -> Int {
        let base = origin == SEEK_SET ? 0 : origin == SEEK_CUR ? position : size
        position = max(0, min(size, base + offset))
        return position
    }
}

/// libarchive converts names to the thread's locale, which must not lose characters.
private enum UTF8Locale {
    nonisolated(unsafe) private static let locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", nil)

    static func during<Value>(_ body: () -> Value) -> Value {
        guard let locale else { return body() }
        let before = uselocale(locale)
        defer { uselocale(before) }
        return body()
    }
}
