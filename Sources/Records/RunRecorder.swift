import Checkpointing
import Configuration
import Foundation
import Support

/// Writes all records of a training run: `metrics.jsonl` always, and the others that `logging` selects. For
/// one rank.
///
/// `metrics.jsonl` is the authoritative record and must be writable. The others are for display only: one
/// that cannot be opened is reported and retried at the next checkpoint.
package final class RunRecorder {
    /// The metrics file, exposed because its lines must be on the disk before a checkpoint is.
    package var metricsFile: AppendedFile { metrics.file }

    private let metrics: MetricsLog
    private var tensorBoard: TensorBoardLog?
    private var wandb: WandBRun?
    /// Closures that open the records not opened so far; nil once there is nothing left to open.
    private var openTensorBoard: (() throws(FileError) -> TensorBoardLog?)?
    private var openWandB: (() throws(FileError) -> WandBRun?)?
    private let onProblem: (String) -> Void

    /// Name of the sample pictures in the records.
    private static let samples = "samples"

    /// Opens the records and truncates them to the step that the run resumes from.
    ///
    /// - Parameters:
    ///   - configuration: the resolved configuration as YAML.
    ///   - resumedStep: the step of the loaded checkpoint; nil starts new records.
    ///   - host: the name of this rank's host.
    ///   - onProblem: called with a one-line message about a record that cannot be written.
    package init(
        _ run: RunFolder, _ description: RunDescription, configuration: String, logging: LoggingConfiguration,
        resumedStep: Int?, host: String, onProblem: @escaping (String) -> Void
    ) throws {
        self.onProblem = onProblem
        metrics = try MetricsLog(
            path: run.metrics, run: description, resumedStep: resumedStep, onProblem: onProblem)
        let step = resumedStep
        openTensorBoard = { () throws(FileError) in
            if step == nil { try TensorBoardLog.discard(in: run.tensorBoard) }
            // Truncate an existing file even if TensorBoard logging is now off, since it may be enabled again
            // later.
            guard logging.tensorboard || TensorBoardLog.exists(in: run.tensorBoard) else { return nil }
            let log = try TensorBoardLog(
                folder: run.tensorBoard, resumedStep: step, host: host, onProblem: onProblem)
            guard logging.tensorboard else { return nil }
            log.append(text: Self.indented(configuration), name: "configuration", step: step ?? 0)
            log.append(text: Self.table(description), name: "run", step: step ?? 0)
            return log
        }
        openWandB = { () throws(FileError) in
            if step == nil { try WandBRun.discard(in: run.wandb) }
            guard logging.wandb == .offline || WandBRun.exists(in: run.wandb) else { return nil }
            let log = try WandBRun(
                in: run.wandb, resumedStep: step,
                WandBRun.Description(
                    name: description.name, configuration: Self.tree(configuration),
                    programVersion: description.programVersion, host: host), onProblem: onProblem)
            return logging.wandb == .offline ? log : nil
        }
        openRecords(onProblem)
    }

    /// Opens the records that are not open yet.
    ///
    /// - Parameter onProblem: called with one line for each record that cannot be opened.
    private func openRecords(_ onProblem: (String) -> Void) {
        Self.open(&tensorBoard, &openTensorBoard, onProblem)
        Self.open(&wandb, &openWandB, onProblem)
    }

    private static func open<Log>(
        _ log: inout Log?, _ opening: inout (() throws(FileError) -> Log?)?, _ onProblem: (String) -> Void
    ) {
        guard let body = opening else { return }
        do {
            log = try body()
            opening = nil
        } catch {
            onProblem(
                "Warning: \(error); the run continues without this record, which is opened again at the next checkpoint"
            )
        }
    }

    package func append(_ entry: StepMetrics) {
        metrics.append(entry)
        tensorBoard?.append(entry.scalars, step: entry.step)
        if !entry.blockNorms.isEmpty {
            tensorBoard?.append(
                histogram: entry.blockNorms.map(\.value), name: "grad_norm_by_block", step: entry.step)
        }
        wandb?.append(entry.scalars, step: entry.step)
    }

    package func append(_ result: EvaluationResult, step: Int) {
        metrics.append(kind: "evaluation", step: step, result.fields)
        let scalars = result.metrics.map { (name: "evaluation/\($0.name)", value: $0.value) }
        tensorBoard?.append(scalars, step: step)
        wandb?.append(scalars, step: step)
    }

    /// Appends a sample picture, encoded as PNG.
    package func append(picture png: [UInt8], width: Int, height: Int, step: Int) {
        tensorBoard?.append(picture: png, width: width, height: height, name: Self.samples, step: step)
        wandb?.append(picture: png, width: width, height: height, name: Self.samples, step: step)
    }

    /// Flushes all records to the disk and retries opening those that could not be opened so far.
    package func synchronize() {
        // No message here: the failure was reported when the run started.
        openRecords { _ in }
        metrics.synchronize()
        tensorBoard?.synchronize()
        wandb?.synchronize()
    }

    /// Records the exit status of training.
    package func finish(exitStatus: Int32) {
        metrics.synchronize()
        tensorBoard?.synchronize()
        wandb?.finish(exitStatus: exitStatus)
    }

    private static func tree(_ yaml: String) -> JSONObject {
        (try? YAMLNode.parse(yaml, source: "config.yaml"))?.json.objectValue ?? JSONObject()
    }

    /// The text as a Markdown code block.
    private static func indented(_ text: String) -> String {
        text.split(separator: "\n", omittingEmptySubsequences: false).map { "    \($0)" }
            .joined(separator: "\n")
    }

    /// The description as a Markdown table.
    private static func table(_ description: RunDescription) -> String {
        let rows = description.fields.members.map { member in
            let words = member.value.arrayValue?.compactMap(\.stringValue) ?? []
            let value = member.value.stringValue ?? member.value.intValue.map(String.init) ?? ""
            return "| \(member.key) | \(words.isEmpty ? value : words.joined(separator: ", ")) |"
        }
        return (["| | |", "|---|---|"] + rows).joined(separator: "\n")
    }
}
