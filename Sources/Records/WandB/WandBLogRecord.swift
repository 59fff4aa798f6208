import CZlib
import Support

/// The framing of a `.wandb` file, which is that of LevelDB's log: blocks of 32 KiB, divided into chunks of
/// checksum (4 bytes), length (2), type (1) and data. A record that does not fit into the rest of a block is
/// continued in the next one. If fewer bytes are left in a block than a chunk header needs, they are 0.
/// Weights & Biases adds a file header, which counts as part of the first block, and uses CRC-32 instead of
/// LevelDB's CRC-32C.
///
/// Source: LevelDB's doc/log_format.md, wandb's datastore.py.
package enum WandBLogRecord {
    /// ":W&B", a magic number, and the format version 0.
    package static let fileHeader: [UInt8] = [0x3A, 0x57, 0x26, 0x42, 0xE1, 0xBE, 0]

    private enum Kind: UInt8 { case full = 1, first, middle, last }
    private static let blockSize = 32768
    private static let headerSize = 7

    /// The encoded bytes of a record at `offset` of the file, including the zero padding before it.
    package static func frame(_ data: [UInt8], at offset: Int) -> [UInt8] {
        var out: [UInt8] = []
        var room = blockSize - offset % blockSize
        if room < headerSize {
            out = [UInt8](repeating: 0, count: room)
            room = blockSize
        }
        var start = 0
        // Not equivalent to `start == 0`, because the first chunk may have no room for data.
        var isFirst = true
        repeat {
            let end = min(data.count, start + room - headerSize)
            let kind: Kind =
                switch (isFirst, end == data.count) {
                case (true, true): .full
                case (true, false): .first
                case (false, false): .middle
                case (false, true): .last
                }
            let piece = Array(data[start..<end])
            out += littleEndian(checksum(kind.rawValue, piece)) + littleEndian(UInt16(piece.count))
            out += [kind.rawValue] + piece
            (start, room, isFirst) = (end, blockSize, false)
        } while start < data.count
        return out
    }

    /// Reads the record that begins at `offset`, or after the zero padding there.
    ///
    /// - Returns: the data and the offset after the record; nil at the end of the file, or if the record is
    ///   truncated or damaged.
    package static func read(
        _ file: AppendedFile, at offset: Int
    ) throws(FileError) -> (data: [UInt8], end: Int)? {
        var at = offset
        let room = blockSize - at % blockSize
        if room < headerSize {
            guard try file.read(at: at, count: room) == [UInt8](repeating: 0, count: room) else { return nil }
            at += room
        }
        var data: [UInt8] = []
        var isFirst = true
        while true {
            let header = try file.read(at: at, count: headerSize)
            guard header.count == headerSize, let kind = Kind(rawValue: header[6]),
                (kind == .full || kind == .first) == isFirst
            else { return nil }
            let length: UInt16 = integer(header, at: 4)
            guard at % blockSize + headerSize + Int(length) <= blockSize else { return nil }
            let piece = try file.read(at: at + headerSize, count: Int(length))
            let expected: UInt32 = integer(header, at: 0)
            guard piece.count == length, checksum(kind.rawValue, piece) == expected else { return nil }
            data += piece
            at += headerSize + piece.count
            if kind == .full || kind == .last { return (data, at) }
            isFirst = false
        }
    }

    private static func checksum(_ kind: UInt8, _ data: [UInt8]) -> UInt32 {
        let bytes = [kind] + data
        return UInt32(crc32(0, bytes, UInt32(bytes.count)))
    }
}
