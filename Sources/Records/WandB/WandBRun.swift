import Configuration
import FileFormats
import Foundation
import RecordProtocols
import Support
import SwiftProtobuf

/// Writes an offline Weights & Biases run, which `wandb sync` uploads later. For one rank.
///
/// A resumed run remains the same run, with the same id: its log is truncated to the resumed step and
/// appended to. The log has one history row per logged step and references to the picture files next to it.
package final class WandBRun {
    /// Metadata of the run, shown in Weights & Biases.
    package struct Description: Sendable {
        package var name: String
        package var configuration: JSONObject
        package var programVersion: String
        package var host: String

        package init(name: String, configuration: JSONObject, programVersion: String, host: String) {
            (self.name, self.configuration) = (name, configuration)
            (self.programVersion, self.host) = (programVersion, host)
        }
    }

    package var path: String { folder.path }

    private let folder: WandBFolder
    private let file: AppendedFile
    private let clock: () -> Double
    private let startedAt: Double
    /// Run time of earlier starts, in seconds.
    private let earlierRuntime: Double
    private var recordCount: Int
    /// The last value of each key, JSON-encoded.
    private var summary: [String: String]
    private var pictures: [String: Int]
    private var statistics = SystemStatistics()
    /// The row of the current step, buffered because the scalars and the picture of a step arrive separately
    /// but form one row.
    private var row: (step: Int, items: [(key: String, json: String)], files: [String], hasScalars: Bool)?
    private let onProblem: (String) -> Void

    /// Opens the run in the folder and truncates it to the step that training resumes from, or creates one.
    ///
    /// - Parameters:
    ///   - parent: the folder that contains the runs, by convention `wandb`.
    ///   - resumedStep: the step of the loaded checkpoint; nil starts a new run.
    ///   - onProblem: called when records cannot be written; once per series of failures.
    ///   - clock: seconds since 1970.
    package init(
        in parent: String, resumedStep: Int?, _ description: Description,
        onProblem: @escaping (String) -> Void,
        clock: @escaping () -> Double = { Date().timeIntervalSince1970 }
    ) throws(FileError) {
        self.clock = clock
        self.onProblem = onProblem
        startedAt = clock()
        if resumedStep == nil { try Self.discard(in: parent) }
        folder = WandBFolder.all(in: parent).last ?? WandBFolder(in: parent, startedAt: startedAt)
        try makeFolder(folder.files)
        file = try AppendedFile(path: folder.log, noun: "record", onProblem: onProblem)
        let kept = try WandBHistory(file, through: resumedStep ?? -1)
        try file.cut(to: kept.hasRun ? kept.end : 0)
        try folder.cutPicturesBack(to: resumedStep ?? -1)
        folder.forgetSync()
        recordCount = kept.hasRun ? kept.recordCount : 0
        summary = kept.summary
        pictures = kept.steps
        earlierRuntime = kept.summary["_runtime"].flatMap { Double($0) } ?? 0
        if kept.hasRun {
            append(changesOf: description.configuration, since: kept.configuration)
        } else {
            introduce(description)
        }
        try writeFiles(description)
        try AtomicFile.synchronizeFolder(of: folder.log)
    }

    /// Whether the folder has a run to continue.
    package static func exists(in parent: String) -> Bool { !WandBFolder.all(in: parent).isEmpty }

    /// Removes the runs of an earlier start that ended before its first checkpoint.
    package static func discard(in parent: String) throws(FileError) {
        for folder in WandBFolder.all(in: parent) {
            do {
                try FileManager.default.removeItem(atPath: folder.path)
            } catch {
                throw FileError(
                    folder.path, "cannot be removed: \(systemReason(of: error))", code: systemCode(of: error))
            }
        }
    }

    // MARK: History

    /// Adds scalars at a step. A slash in a name groups the charts.
    package func append(_ scalars: [(name: String, value: Double)], step: Int) {
        begin(step)
        row?.hasScalars = true
        // JSON has no NaN or infinities; leave them out.
        row?.items += scalars.filter(\.value.isFinite).map { ($0.name, Self.json(.number($0.value))) }
    }

    /// Adds a PNG image, written as a file to the run's folder.
    package func append(picture png: [UInt8], width: Int, height: Int, name: String, step: Int) {
        if pictures[name] == step { return }
        let sha256 = SHA256.text(of: png)
        let path = WandBFolder.picture(name: name, step: step, sha256: sha256)
        do {
            try makeFolder("\(folder.files)/media/images")
            try AtomicFile.write(png, to: "\(folder.files)/\(path)")
        } catch {
            return onProblem("\(error.path): a picture could not be written and is lost: \(error.message)")
        }
        begin(step)
        pictures[name] = step
        let reference: JSONValue = [
            "_type": "image-file", "sha256": .string(sha256), "size": .integer(png.count),
            "path": .string(path),
            "format": "png", "width": .integer(width), "height": .integer(height),
        ]
        row?.items.append((name, Self.json(reference)))
        row?.files.append(path)
    }

    /// Flushes all rows to the disk, including that of the current step; a failure is reported.
    package func synchronize() {
        flush()
        file.synchronize()
        writeSummary()
    }

    /// Records the exit status of training.
    package func finish(exitStatus: Int32) {
        flush()
        var records: [WBRecord.OneOf_RecordType] = []
        if exitStatus == ExitStatus.runAgain { records.append(.preempting(WBRunPreemptingRecord())) }
        records.append(
            .exit(
                WBRunExitRecord.with {
                    $0.exitCode = exitStatus
                    $0.runtime = Int32(clamping: Int(runtime))
                }))
        append(records)
        file.synchronize()
        writeSummary()
    }

    private var runtime: Double { earlierRuntime + max(0, clock() - startedAt) }

    private func begin(_ step: Int) {
        if row?.step == step { return }
        flush()
        row = (step, [], [], false)
    }

    /// Writes the buffered row. Nothing can be added to a row after it is written.
    private func flush() {
        guard let row else { return }
        self.row = nil
        let now = clock()
        let items =
            row.items + [
                ("_step", String(row.step)), ("_timestamp", Self.json(.number(now))),
                ("_runtime", Self.json(.number(runtime))),
            ]
        for item in items { summary[item.key] = item.json }
        var records: [WBRecord.OneOf_RecordType] = []
        if !row.files.isEmpty { records.append(.files(Self.files(row.files, .media))) }
        records.append(
            .summary(
                WBSummaryRecord.with {
                    $0.update = items.map { item in
                        WBSummaryItem.with { ($0.key, $0.valueJson) = (item.key, item.json) }
                    }
                }))
        if row.hasScalars { records.append(.stats(sampleStatistics(at: now))) }
        records.append(
            .history(
                WBHistoryRecord.with {
                    $0.step.num = Int64(row.step)
                    $0.item = items.map { item in
                        WBHistoryItem.with { ($0.key, $0.valueJson) = (item.key, item.json) }
                    }
                }))
        append(records)
    }

    private func sampleStatistics(at now: Double) -> WBStatsRecord {
        let values = statistics.sample()
        return WBStatsRecord.with {
            $0.timestamp = Self.timestamp(now)
            $0.item = values.map { item in
                WBStatsItem.with { ($0.key, $0.valueJson) = (item.name, Self.json(.number(item.value))) }
            }
        }
    }

    /// Appends all of the records or none of them.
    private func append(_ records: [WBRecord.OneOf_RecordType]) {
        let size = file.size
        var bytes = size == 0 ? WandBLogRecord.fileHeader : []
        do {
            for (index, content) in records.enumerated() {
                var record = WBRecord()
                record.num = Int64(recordCount + index + 1)
                record.recordType = content
                bytes += WandBLogRecord.frame(try record.serializedBytes(), at: size + bytes.count)
            }
        } catch {
            return file.lose("\(error)")
        }
        if file.append(bytes) { recordCount += records.count }
    }

    // MARK: The run itself

    private func introduce(_ description: Description) {
        let environment = ProcessInfo.processInfo.environment
        append([
            .header(
                WBHeaderRecord.with {
                    $0.versionInfo.producer = "disttrain-\(description.programVersion)"
                    $0.versionInfo.minConsumer = Self.oldestReader
                }),
            .run(
                WBRunRecord.with {
                    $0.runID = folder.id
                    $0.displayName = description.name
                    // wandb reads the same environment variables.
                    $0.entity = environment["WANDB_ENTITY"] ?? ""
                    $0.project = environment["WANDB_PROJECT"] ?? "disttrain"
                    $0.host = description.host
                    $0.startTime = Self.timestamp(startedAt)
                    $0.config = Self.update(description.configuration.members)
                }),
            .environment(
                WBEnvironmentRecord.with {
                    $0.os = Self.system
                    $0.startedAt = Self.timestamp(startedAt)
                    $0.args = Array(CommandLine.arguments.dropFirst())
                    $0.program = CommandLine.arguments.first ?? ""
                    $0.root = FileManager.default.currentDirectoryPath
                    $0.host = description.host
                    $0.cpuCount = UInt32(ProcessInfo.processInfo.processorCount)
                    $0.cpuCountLogical = $0.cpuCount
                    $0.memory.total = UInt64(SystemStatistics.memory ?? 0)
                    $0.slurm = RecordedEnvironment.slurmJob().map { entry in
                        WBEnvironmentRecord.SlurmEntry.with { ($0.key, $0.value) = entry }
                    }
                    $0.writerID = folder.id
                }),
            .files(Self.files(["wandb-metadata.json", "config.yaml"], .wandb)),
        ])
    }

    private func append(changesOf configuration: JSONObject, since old: [String: String]) {
        let changed = configuration.members.filter { old[$0.key] != Self.json($0.value) }
        if !changed.isEmpty { append([.config(Self.update(changed))]) }
    }

    /// Writes the files that `wandb` places next to the log, for users who browse the folder.
    private func writeFiles(_ description: Description) throws(FileError) {
        var configuration: ConfigNode = .mapping(["_wandb": .mapping(["value": .mapping([:])])])
        for member in description.configuration.members {
            configuration[member.key] = .mapping(["value": ConfigNode(member.value)])
        }
        try AtomicFile.write(Array(YAMLNode.text(configuration).utf8), to: "\(folder.files)/config.yaml")
        var slurm = JSONObject()
        for entry in RecordedEnvironment.slurmJob() { slurm[entry.key] = .string(entry.value) }
        let metadata: JSONValue = [
            "os": .string(Self.system), "startedAt": .string(Self.isoTime(startedAt)),
            "args": .array(CommandLine.arguments.dropFirst().map { .string($0) }),
            "program": .string(CommandLine.arguments.first ?? ""),
            "root": .string(FileManager.default.currentDirectoryPath), "host": .string(description.host),
            "cpu_count": .integer(ProcessInfo.processInfo.processorCount),
            "memory": ["total": .string(String(SystemStatistics.memory ?? 0))], "slurm": .object(slurm),
        ]
        try AtomicFile.write(
            Array(Self.json(metadata, pretty: true).utf8), to: "\(folder.files)/wandb-metadata.json")
        writeSummary()
    }

    private func writeSummary() {
        let members = summary.sorted { $0.key < $1.key }.map { "\(JSONValue.quoted($0.key)): \($0.value)" }
        let text = "{" + members.joined(separator: ", ") + "}\n"
        do {
            try AtomicFile.write(Array(text.utf8), to: "\(folder.files)/wandb-summary.json")
        } catch {
            onProblem("\(error.path): \(error.message)")
        }
    }
}

extension WandBRun {
    /// The oldest wandb version that can read these records.
    private static let oldestReader = "0.19.0"

    private static func json(_ value: JSONValue, pretty: Bool = false) -> String {
        (try? value.text(pretty: pretty)) ?? "null"
    }

    private static func timestamp(_ seconds: Double) -> WBTimestamp {
        WBTimestamp.with {
            $0.seconds = Int64(seconds)
            $0.nanos = Int32((seconds - seconds.rounded(.down)) * 1e9)
        }
    }

    private static func isoTime(_ seconds: Double) -> String {
        Date(timeIntervalSince1970: seconds).formatted(.iso8601)
    }

    private static func update(_ members: [(key: String, value: JSONValue)]) -> WBConfigRecord {
        WBConfigRecord.with {
            $0.update = members.map { member in
                WBConfigItem.with { ($0.key, $0.valueJson) = (member.key, json(member.value)) }
            }
        }
    }

    private static func files(_ paths: [String], _ type: WBFilesItem.FileType) -> WBFilesRecord {
        WBFilesRecord.with {
            $0.files = paths.map { path in WBFilesItem.with { ($0.path, $0.type) = (path, type) } }
        }
    }

    private static var system: String { ProcessInfo.processInfo.operatingSystemVersionString }
}
