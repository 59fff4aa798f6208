import Imaging

/// A regular file in a tar archive.
struct TarMember {
    /// Without a leading `./` or `/`.
    let name: String
    /// Offset of its bytes in the uncompressed archive.
    let offset: Int
    let size: Int

    var range: Range<Int> { offset..<offset + size }
}

/// Lists the regular files of a tar archive: ustar, pax (path and size) and GNU (long names, sizes in base
/// 256).
///
/// - Parameter skipBad: for a truncated archive, return the complete members and describe the error in
///   `cutShort`.
/// - Source: POSIX.1-2017, pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format".
func listTar(
    _ file: ReadOnlyFile, skipBad: Bool
) throws(ImageError) -> (members: [TarMember], cutShort: String?) {
    var members: [TarMember] = []
    var longName: String?
    var longSize: Int?
    var at = 0

    func cutShort(_ detail: String) throws(ImageError) -> (members: [TarMember], cutShort: String?) {
        if skipBad && !members.isEmpty { return (members, "(the archive is cut short: \(detail))") }
        throw ImageError(
            .badArchive, name: file.name,
            "the archive is cut short: \(detail), after \(members.count) whole files")
    }

    while true {
        guard at + TarHeader.size <= file.size else {
            return try cutShort("no end-of-archive mark at byte \(file.size)")
        }
        let block = try file.read(at: at, count: TarHeader.size)
        if block.allSatisfy({ $0 == 0 }) { return (members, nil) }
        guard let header = TarHeader(block) else {
            throw ImageError(
                .badArchive, name: file.name,
                at == 0
                    ? "no tar archive; expected a folder, .tar, .tar.gz or .tgz of images"
                    : "damaged archive: no valid tar header at byte \(at)")
        }
        let size = header.kind == .file ? longSize ?? header.size : header.size
        let start = at + TarHeader.size
        guard size <= file.size - start else {
            return try cutShort(
                "\(longName ?? header.name) needs \(size) bytes, \(file.size - start) are left")
        }
        at = start + (size + TarHeader.size - 1) / TarHeader.size * TarHeader.size

        switch header.kind {
        case .gnuLongName:
            let bytes = try file.read(at: start, count: min(size, TarHeader.longestName))
            longName = String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        case .paxRecords:
            let records = paxRecords(try file.read(at: start, count: min(size, TarHeader.longestName)))
            longName = records["path"] ?? longName
            longSize = records["size"].flatMap(Int.init).flatMap { $0 >= 0 ? $0 : nil } ?? longSize
        case .file:
            members.append(TarMember(name: relative(longName ?? header.name), offset: start, size: size))
            (longName, longSize) = (nil, nil)
        case .metadata:
            break
        case .other:
            (longName, longSize) = (nil, nil)
        }
    }
}

private func relative(_ name: String) -> String {
    name.split(separator: "/").filter { $0 != "." }.joined(separator: "/")
}

/// Parses pax records, lines "LENGTH KEY=VALUE\n" whose length counts the whole line.
private func paxRecords(_ bytes: [UInt8]) -> [String: String] {
    var records: [String: String] = [:]
    var rest = bytes[...]
    while let space = rest.firstIndex(of: 0x20),
        let length = Int(String(decoding: rest[..<space], as: UTF8.self)),
        length > space - rest.startIndex + 1, length <= rest.count
    {
        let line = rest[(space + 1)..<(rest.startIndex + length - 1)]
        if let equals = line.firstIndex(of: 0x3D) {
            records[String(decoding: line[..<equals], as: UTF8.self)] =
                String(decoding: line[(equals + 1)...], as: UTF8.self)
        }
        rest = rest.dropFirst(length)
    }
    return records
}

/// One 512-byte header block.
private struct TarHeader {
    static let size = 512
    /// Limit on the length of a name in bytes, so that a hostile archive cannot make us read gigabytes.
    static let longestName = 1 << 20

    enum Kind { case file, gnuLongName, paxRecords, metadata, other }

    let name: String
    let size: Int
    let kind: Kind

    /// nil if the checksum or a number is invalid.
    init?(_ block: [UInt8]) {
        // The checksum is computed with its own field read as blanks.
        let sum = block.indices.reduce(0) { $0 + ((148..<156).contains($1) ? 0x20 : Int(block[$1])) }
        guard let checksum = Self.number(block[148..<156]), checksum == sum,
            let size = Self.number(block[124..<136])
        else { return nil }
        self.size = size
        var name = Self.text(block[0..<100])
        // Only "ustar\0": GNU headers, "ustar  ", use the prefix field for other data.
        if block[257..<263].elementsEqual([0x75, 0x73, 0x74, 0x61, 0x72, 0]) {
            let prefix = Self.text(block[345..<500])
            if !prefix.isEmpty { name = "\(prefix)/\(name)" }
        }
        self.name = name
        kind =
            switch block[156] {
            case UInt8(ascii: "0"), UInt8(ascii: "7"), 0: name.hasSuffix("/") ? .other : .file
            case UInt8(ascii: "L"): .gnuLongName
            case UInt8(ascii: "x"): .paxRecords
            case UInt8(ascii: "g"), UInt8(ascii: "K"): .metadata
            default: .other
            }
    }

    private static func text(_ field: ArraySlice<UInt8>) -> String {
        String(decoding: field.prefix { $0 != 0 }, as: UTF8.self)
    }

    /// Octal digits between blanks, or big-endian binary after a byte 0x80 (GNU). nil if neither, or above
    /// 2^62.
    private static func number(_ field: ArraySlice<UInt8>) -> Int? {
        var value = 0
        if let first = field.first, first & 0x80 != 0 {
            guard first == 0x80 else { return nil }
            for byte in field.dropFirst() {
                guard value < 1 << 54 else { return nil }
                value = value << 8 | Int(byte)
            }
            return value
        }
        for byte in field.drop(while: { $0 == 0x20 }).prefix(while: { $0 != 0x20 && $0 != 0 }) {
            guard (0x30...0x37).contains(byte), value < 1 << 58 else { return nil }
            value = value << 3 | Int(byte - 0x30)
        }
        return value
    }
}
