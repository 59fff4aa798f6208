import CZlib
import RecordProtocols
import Support
import SwiftProtobuf

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

/// The prefix of a `.wandb` file to keep when a run resumes from a step, and the state it contains.
///
/// A history row is the last record of its step; the step's files, summary and statistics precede it. The
/// prefix therefore ends with the last row that is not later than the step or, if there is none, with the
/// records that introduce the run.
struct WandBHistory {
    /// Length of the prefix in bytes.
    private(set) var end = 0
    private(set) var recordCount = 0
    private(set) var hasRun = false
    /// Configuration values, JSON-encoded. `summary` likewise has the last value of each key.
    private(set) var configuration: [String: String] = [:]
    private(set) var summary: [String: String] = [:]
    /// The last step with a value for each key.
    private(set) var steps: [String: Int] = [:]

    init(_ file: AppendedFile, through step: Int) throws(FileError) {
        guard try file.read(at: 0, count: 7) == WandBLogRecord.fileHeader else { return }
        // `present` is the state after each record read; `self` is the state at the end of the prefix to
        // keep.
        var present = self
        present.end = WandBLogRecord.fileHeader.count
        while let frame = try WandBLogRecord.read(file, at: present.end),
            let record = try? WBRecord(serializedBytes: frame.data)
        {
            if case .history(let row) = record.recordType, row.step.num > step { break }
            present.add(record, end: frame.end)
            switch record.recordType {
            case .history: self = present
            case .header, .run, .environment: self = present
            case .files(let list) where list.files.allSatisfy { $0.type == .wandb }: self = present
            default: break
            }
        }
    }

    private mutating func add(_ record: WBRecord, end: Int) {
        self.end = end
        recordCount += 1
        switch record.recordType {
        case .run(let run):
            hasRun = true
            for item in run.config.update { configuration[item.key] = item.valueJson }
        case .config(let change):
            for item in change.update { configuration[item.key] = item.valueJson }
        case .summary(let change):
            for item in change.update { summary[item.key] = item.valueJson }
        case .history(let row):
            for item in row.item { steps[item.key] = Int(row.step.num) }
        default: break
        }
    }
}
