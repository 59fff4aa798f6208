import CZlib
import Support

/// The members of a zip archive, read in place and in any order through its central directory.
///
/// All members may be read from several threads at once.
///
/// - Source: PKWARE's APPNOTE.TXT 6.3, with zip64; methods 0 (stored) and 8 (deflated).
package struct ZipFile: Sendable {
    /// Returns as many bytes at an offset as asked for; its errors are rethrown.
    package typealias Reader = @Sendable (_ offset: Int, _ count: Int) throws -> [UInt8]

    package struct Member: Sendable, Equatable {
        package let name: String
        /// Bytes of its content, and of its stored form.
        package let size: Int
        package let storedSize: Int
        /// Offset of its local header.
        let header: Int
        let crc32: UInt32
        /// 0 if it is stored as it is, 8 if deflated.
        package let method: Int
        package let isEncrypted: Bool
        /// Whether it is a regular file rather than a folder or a link.
        package let isFile: Bool
    }

    /// In the order of the central directory.
    package let members: [Member]
    private let size: Int
    private let read: Reader

    /// Limit on the size of the central directory, which is read at once: 10 million members.
    private static let maximumDirectory = 1 << 30

    /// Whether a file begins like a zip archive, possibly an empty one.
    package static func recognizes(_ start: [UInt8]) -> Bool {
        start.starts(with: [0x50, 0x4B, 3, 4]) || start.starts(with: [0x50, 0x4B, 5, 6])
    }

    /// - Parameter size: of the archive in bytes.
    package init(size: Int, read: @escaping Reader) throws {
        (self.size, self.read) = (size, read)
        let place = try Self.directory(size, read)
        guard place.count <= Self.maximumDirectory else {
            throw ArchiveError(
                detail: "its directory has \(place.count) bytes, expected at most \(Self.maximumDirectory)")
        }
        members = try Self.members(in: read(place.start, place.count), before: place.start)
        try checkOverlaps()
    }

    // MARK: Directory

    /// Finds the central directory from the record at the end of the archive.
    private static func directory(_ size: Int, _ read: Reader) throws -> (start: Int, count: Int) {
        // The record is followed by a comment of at most 65,535 bytes.
        let tailSize = min(size, 22 + 65_535 + 20)
        let tail = try read(size - tailSize, tailSize)
        let end = stride(from: tailSize - 22, through: 0, by: -1).first {
            tail[$0] == 0x50 && tail.little(at: $0, 4) == 0x0605_4B50
                && $0 + 22 + tail.little(at: $0 + 20, 2) == tailSize
        }
        guard let end else {
            throw ArchiveError(detail: "no directory at its end: truncated, or not a zip archive")
        }
        var (count, start) = (tail.little(at: end + 12, 4), tail.little(at: end + 16, 4))
        var limit = size - tailSize + end
        let isSplit = tail.little(at: end + 4, 2) != tail.little(at: end + 6, 2)
        if end >= 20, tail.little(at: end - 20, 4) == 0x0706_4B50 {
            // zip64: the locator has the offset of a record with 64-bit numbers.
            let offset = tail.little(at: end - 12, 8)
            guard offset >= 0, offset <= limit - 56 else {
                throw ArchiveError(detail: "its zip64 record at byte \(offset) is outside of the archive")
            }
            let record = try read(offset, 56)
            guard record.little(at: 0, 4) == 0x0606_4B50 else {
                throw ArchiveError(detail: "no zip64 record at byte \(offset)")
            }
            (count, start) = (record.little(at: 40, 8), record.little(at: 48, 8))
            limit = offset
        }
        guard !isSplit else { throw ArchiveError(detail: "one of several parts of a split archive") }
        guard start >= 0, count >= 0, start <= limit, count <= limit - start else {
            throw ArchiveError(
                detail: "its directory, \(count) bytes at byte \(start), is outside of the archive: truncated"
            )
        }
        return (start, count)
    }

    private static func members(in directory: [UInt8], before start: Int) throws -> [Member] {
        var members: [Member] = []
        var at = 0
        while at < directory.count {
            guard at + 46 <= directory.count, directory.little(at: at, 4) == 0x0201_4B50 else {
                throw ArchiveError(detail: "damaged directory after \(members.count) members")
            }
            let nameLength = directory.little(at: at + 28, 2)
            let extraLength = directory.little(at: at + 30, 2)
            let next = at + 46 + nameLength + extraLength + directory.little(at: at + 32, 2)
            guard next <= directory.count else {
                throw ArchiveError(detail: "damaged directory after \(members.count) members")
            }
            let nameBytes = directory[at + 46..<at + 46 + nameLength]
            var name = String(decoding: nameBytes, as: UTF8.self)
            // Some programs for Windows separate folders by backslashes.
            if !nameBytes.contains(0x2F), nameBytes.contains(0x5C) {
                name = String(name.map { $0 == "\\" ? "/" : $0 })
            }
            var numbers = [
                directory.little(at: at + 24, 4), directory.little(at: at + 20, 4),
                directory.little(at: at + 42, 4),
            ]
            expand(&numbers, directory[(at + 46 + nameLength)..<(at + 46 + nameLength + extraLength)])
            guard numbers.allSatisfy({ $0 >= 0 }), numbers[2] <= start, numbers[1] <= start - numbers[2]
            else {
                throw ArchiveError(detail: "\(name) lies outside of the archive: truncated or damaged")
            }
            let madeByUnix = directory[at + 5] == 3 || directory[at + 5] == 19
            let mode = madeByUnix ? directory.little(at: at + 40, 2) & 0o170000 : 0
            members.append(
                Member(
                    name: name, size: numbers[0], storedSize: numbers[1], header: numbers[2],
                    crc32: UInt32(directory.little(at: at + 16, 4)),
                    method: directory.little(at: at + 10, 2),
                    isEncrypted: directory[at + 8] & 1 == 1,
                    isFile: !name.hasSuffix("/") && (mode == 0 || mode == 0o100000)))
            at = next
        }
        return members
    }

    /// Replaces numbers of 32 one bits by those of the zip64 extra field, which has only those, in this order.
    private static func expand(_ numbers: inout [Int], _ extra: ArraySlice<UInt8>) {
        guard numbers.contains(0xFFFF_FFFF) else { return }
        let extra = Array(extra)
        var at = 0
        while at + 4 <= extra.count {
            let length = extra.little(at: at + 2, 2)
            if extra.little(at: at, 2) == 1 {
                var field = at + 4
                for index in numbers.indices where numbers[index] == 0xFFFF_FFFF {
                    guard field + 8 <= min(extra.count, at + 4 + length) else { return }
                    numbers[index] = extra.little(at: field, 8)
                    field += 8
                }
                return
            }
            at += 4 + length
        }
    }

    /// Members that share bytes multiply a small archive into a huge one.
    private func checkOverlaps() throws {
        var end = 0
        for member in members.sorted(by: { $0.header < $1.header }) {
            guard member.header >= end else {
                throw ArchiveError(detail: "\(member.name) shares bytes with another member")
            }
            end = member.header + 30 + member.storedSize
        }
    }

    // MARK: Content

    /// The place of a member's stored bytes in the archive.
    package func range(of member: Member) throws -> Range<Int> {
        let header = try read(member.header, min(30, size - member.header))
        guard header.count == 30, header.little(at: 0, 4) == 0x0403_4B50 else {
            throw ArchiveError(detail: "no member at byte \(member.header): damaged archive")
        }
        let start = member.header + 30 + header.little(at: 26, 2) + header.little(at: 28, 2)
        guard start <= size, member.storedSize <= size - start else {
            throw ArchiveError(detail: "lies outside of the archive")
        }
        return start..<start + member.storedSize
    }

    /// The content of a member, verified against its checksum. The caller has checked its size.
    package func content(of member: Member) throws -> [UInt8] {
        if member.method == 0, !member.isEncrypted, member.size == member.storedSize {
            let range = try range(of: member)
            let bytes = try read(range.lowerBound, range.count)
            try verify(bytes.withUnsafeBytes { Self.checksum(0, $0) }, member)
            return bytes
        }
        var bytes: [UInt8] = []
        // The size is only what the directory claims.
        bytes.reserveCapacity(min(member.size, Self.piece))
        try readPieces(of: member) { bytes.append(contentsOf: $0) }
        return bytes
    }

    /// Calls `body` with the content of a member in pieces, and then verifies it against its size and checksum.
    package func readPieces(of member: Member, _ body: (UnsafeRawBufferPointer) throws -> Void) throws {
        guard !member.isEncrypted else { throw ArchiveError(detail: "is encrypted") }
        let range = try range(of: member)
        var checksum: UInt = 0
        switch member.method {
        case 0:
            guard member.size == member.storedSize else {
                throw ArchiveError(detail: "has \(member.storedSize) bytes, expected \(member.size)")
            }
            for start in stride(from: range.lowerBound, to: range.upperBound, by: Self.piece) {
                try read(start, min(Self.piece, range.upperBound - start)).withUnsafeBytes {
                    checksum = Self.checksum(checksum, $0)
                    try body($0)
                }
            }
        case 8:
            try inflate(range, size: member.size) {
                checksum = Self.checksum(checksum, $0)
                try body($0)
            }
        default:
            throw ArchiveError(
                detail:
                    "is compressed by method \(member.method), expected stored (0) or deflated (8); unzip "
                    + "the archive, or zip it again with another program")
        }
        try verify(checksum, member)
    }

    private static let piece = 1 << 20

    private func inflate(
        _ range: Range<Int>, size: Int, _ body: (UnsafeRawBufferPointer) throws -> Void
    ) throws {
        var stream = z_stream()
        guard
            inflateInit2_(&stream, -MAX_WBITS, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size)) == Z_OK
        else { throw ArchiveError(detail: "not enough memory to decompress it") }
        defer { inflateEnd(&stream) }
        let outputSize = min(max(size, 1) + 1, Self.piece)
        let output = UnsafeMutableRawBufferPointer.allocate(byteCount: outputSize, alignment: 16)
        defer { output.deallocate() }
        var position = range.lowerBound
        var total = 0
        var status = Z_OK
        while status != Z_STREAM_END, position < range.upperBound {
            var input = try read(position, min(Self.piece, range.upperBound - position))
            position += input.count
            try input.withUnsafeMutableBytes { input in
                stream.next_in = input.baseAddress?.assumingMemoryBound(to: UInt8.self)
                stream.avail_in = UInt32(input.count)
                repeat {
                    stream.next_out = output.baseAddress?.assumingMemoryBound(to: UInt8.self)
                    stream.avail_out = UInt32(output.count)
                    status = CZlib.inflate(&stream, Z_NO_FLUSH)
                    guard status == Z_OK || status == Z_STREAM_END || status == Z_BUF_ERROR else {
                        throw ArchiveError(detail: "damaged deflated data after \(total) bytes")
                    }
                    let count = output.count - Int(stream.avail_out)
                    total += count
                    guard total <= size else {
                        throw ArchiveError(detail: "expands to more than its size of \(size) bytes")
                    }
                    try body(UnsafeRawBufferPointer(rebasing: output[..<count]))
                } while status == Z_OK && (stream.avail_in > 0 || stream.avail_out == 0)
            }
        }
        guard status == Z_STREAM_END, total == size else {
            throw ArchiveError(detail: "expands to \(total) bytes, expected \(size): damaged")
        }
    }

    private static func checksum(_ before: UInt, _ bytes: UnsafeRawBufferPointer) -> UInt {
        crc32_z(before, bytes.baseAddress?.assumingMemoryBound(to: UInt8.self), bytes.count)
    }

    private func verify(_ checksum: UInt, _ member: Member) throws {
        guard UInt32(truncatingIfNeeded: checksum) == member.crc32 else {
            throw ArchiveError(detail: "does not match its checksum: damaged")
        }
    }
}

extension [UInt8] {
    /// A little-endian number of `count` bytes; negative if it is 8 bytes and does not fit.
    fileprivate func little(at offset: Int, _ count: Int) -> Int {
        var value: UInt64 = 0
        for index in 0..<count { value |= UInt64(self[offset + index]) << (8 * index) }
        return Int(truncatingIfNeeded: value)
    }
}
