import Foundation
import LDMModel

/// Everything that is recorded while a run trains: `metrics.jsonl` always, and what `logging` asks for. For one rank.
///
/// `metrics.jsonl` is what a run is known by, and must be writable. The other records are for looking at: one that
/// cannot be opened is told of and left out.
public final class RunRecorder {
    private let metrics: MetricsLog
    private let tensorBoard: TensorBoardLog?
    private let wandb: WandBRun?

    /// What pictures of the model's work are called.
    private static let samples = "samples"

    /// Opens the records, cut back to where the run goes on.
    ///
    /// - Parameters:
    ///   - configuration: the resolved configuration, YAML.
    ///   - resumedStep: the step of the checkpoint that was loaded; nil starts them anew.
    ///   - host: this rank's.
    ///   - onProblem: told, in a line, of what cannot be written.
    public init(
        _ run: RunFolder, _ description: RunDescription, configuration: String, logging: LoggingConfiguration,
        resumedStep: Int?, host: String, onProblem: @escaping (String) -> Void
    ) throws {
        metrics = try MetricsLog(
            path: run.metrics, run: description, resumedStep: resumedStep, onProblem: onProblem)
        let step = resumedStep
        tensorBoard = Self.open(onProblem) { () throws(FileError) in
            if step == nil { try TensorBoardLog.discard(in: run.tensorBoard) }
            // A file that is not wanted any more is cut back, too: it may be wanted again.
            guard logging.tensorboard || TensorBoardLog.exists(in: run.tensorBoard) else { return nil }
            let log = try TensorBoardLog(
                folder: run.tensorBoard, resumedStep: step, host: host, onProblem: onProblem)
            return logging.tensorboard ? log : nil
        }
        wandb = Self.open(onProblem) { () throws(FileError) in
            if step == nil { try WandBRun.discard(in: run.wandb) }
            guard logging.wandb || WandBRun.exists(in: run.wandb) else { return nil }
            let log = try WandBRun(
                in: run.wandb, resumedStep: step,
                WandBRun.Description(
                    name: description.name, configuration: Self.tree(configuration),
                    programVersion: description.programVersion, host: host), onProblem: onProblem)
            return logging.wandb ? log : nil
        }
        tensorBoard?.append(
            text: Self.indented(configuration), name: "configuration", step: resumedStep ?? 0)
        tensorBoard?.append(text: Self.table(description), name: "run", step: resumedStep ?? 0)
    }

    public func append(_ entry: StepMetrics) {
        metrics.append(entry)
        tensorBoard?.append(entry.scalars, step: entry.step)
        if !entry.blockNorms.isEmpty {
            tensorBoard?.append(
                histogram: entry.blockNorms.map(\.value), name: "grad_norm_by_block", step: entry.step)
        }
        wandb?.append(entry.scalars, step: entry.step)
    }

    func append(_ result: EvaluationResult, step: Int) {
        metrics.append(kind: "evaluation", step: step, result.fields)
        let scalars = result.metrics.map { (name: "evaluation/\($0.name)", value: $0.value) }
        tensorBoard?.append(scalars, step: step)
        wandb?.append(scalars, step: step)
    }

    /// A picture of the model's work as a PNG file.
    public func append(picture png: [UInt8], width: Int, height: Int, step: Int) {
        tensorBoard?.append(picture: png, width: width, height: height, name: Self.samples, step: step)
        wandb?.append(picture: png, width: width, height: height, name: Self.samples, step: step)
    }

    /// Waits until all is on the disk: a checkpoint must not outlive the curve up to it.
    public func synchronize() {
        metrics.synchronize()
        tensorBoard?.synchronize()
        wandb?.synchronize()
    }

    /// Tells the records how training ended.
    public func finish(exitStatus: Int32) { wandb?.finish(exitStatus: exitStatus) }

    private static func open<Log>(
        _ onProblem: (String) -> Void, _ body: () throws(FileError) -> Log?
    ) -> Log? {
        do {
            return try body()
        } catch {
            onProblem("Warning: \(error); the run goes on without this record")
            return nil
        }
    }

    private static func tree(_ yaml: String) -> JSONObject {
        (try? YAMLNode.parse(yaml, source: "config.yaml"))?.json.objectValue ?? JSONObject()
    }

    /// As a block of code in Markdown.
    private static func indented(_ text: String) -> String {
        text.split(separator: "\n", omittingEmptySubsequences: false).map { "    \($0)" }
            .joined(separator: "\n")
    }

    /// As a table in Markdown.
    private static func table(_ description: RunDescription) -> String {
        let rows = description.fields.members.map { member in
            let words = member.value.arrayValue?.compactMap(\.stringValue) ?? []
            let value = member.value.stringValue ?? member.value.intValue.map(String.init) ?? ""
            return "| \(member.key) | \(words.isEmpty ? value : words.joined(separator: ", ")) |"
        }
        return (["| | |", "|---|---|"] + rows).joined(separator: "\n")
    }
}
