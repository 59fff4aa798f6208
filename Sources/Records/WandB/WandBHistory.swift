import RecordProtocols
import Support
import SwiftProtobuf

/// What of a `.wandb` file stays when a run goes on from a step, and what it says.
///
/// A row of history closes what belongs to its step (files, summary, statistics stand before it). So what is kept ends
/// with the last row of no later step, or, where there is none, with the records that introduce the run.
struct WandBHistory {
    /// Length in bytes.
    private(set) var end = 0
    private(set) var recordCount = 0
    private(set) var hasRun = false
    /// Values in JSON.
    package private(set) var configuration: [String: String] = [:]
    private(set) var summary: [String: String] = [:]
    /// The last step with a value, by key.
    private(set) var steps: [String: Int] = [:]

    init(_ file: AppendedFile, through step: Int) throws(FileError) {
        guard try file.read(at: 0, count: 7) == WandBLogRecord.fileHeader else { return }
        // As it is after each record, and as it is where what is kept ends.
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
