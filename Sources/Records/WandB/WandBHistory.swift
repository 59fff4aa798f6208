import RecordProtocols
import Support
import SwiftProtobuf

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
    package private(set) var configuration: [String: String] = [:]
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
