import Foundation
import Support

/// Why the metrics file cannot be opened, in one line.
package struct MetricsError: ReportableError, Equatable {
    package let path: String
    package let detail: String
    /// `errno` of the failed file operation; 0 for any other reason.
    package var code: Int32 = 0

    package var message: String { "\(path): \(detail)" }
    package var exitStatus: Int32 { ExitStatus.forSystemError(code, otherwise: ExitStatus.usage) }
}

/// Writes `metrics.jsonl`, one JSON object per line. The file never contains a partial line. For one rank.
///
/// Kinds of lines: `run` (the first), `step`, `resume`, and any other kind passed to `append(kind:)`.
package final class MetricsLog {
    /// Number of lines that could not be written and are not buffered for a retry either.
    package var lostLines: Int { file.lost }

    let file: AppendedFile
    private let clock: () -> Double

    /// Opens the file and truncates it to the step that the run resumes from.
    ///
    /// - Parameters:
    ///   - resumedStep: the step of the loaded checkpoint; nil empties the file.
    ///   - onProblem: called with a message when lines cannot be written; once per series of failures.
    ///   - clock: seconds since 1970.
    package init(
        path: String, run: RunDescription, resumedStep: Int? = nil,
        onProblem: @escaping (String) -> Void,
        clock: @escaping () -> Double = { Date().timeIntervalSince1970 }
    ) throws(MetricsError) {
        self.clock = clock
        let kept =
            if let resumedStep {
                MetricsHistory.keptPrefix(of: try MetricsHistory.read(path) ?? Data(), through: resumedStep)
            } else {
                0
            }
        do {
            file = try AppendedFile(path: path, noun: "line", onProblem: onProblem)
            try file.cut(to: kept)
        } catch {
            throw MetricsError(path: path, detail: error.detail, code: error.code)
        }
        if kept == 0 { append(kind: "run", step: nil, run.fields) }
        if let resumedStep { append(kind: "resume", step: resumedStep, run.fields) }
    }

    /// Flushes all lines to the disk. A failure is reported and the lines are retried later.
    package func synchronize() { file.synchronize() }

    /// Waits until all lines are on the disk, so that a checkpoint never has a step that the metrics lack.
    /// Callable from any thread.
    package func commit() throws(FileError) { try file.commit() }

    package func append(_ metrics: StepMetrics) { append(kind: "step", step: metrics.step, metrics.fields) }

    /// Appends a line of another kind, with a timestamp.
    ///
    /// - Parameter step: optimizer updates made; nil if the line has no step. When a run resumes, lines of
    ///   later steps than the checkpoint's are removed.
    package func append(kind: String, step: Int?, _ fields: JSONObject) {
        var line: JSONObject = ["kind": .string(kind)]
        if let step { line["step"] = .integer(step) }
        for member in fields.members { line[member.key] = member.value }
        line["time"] = .finite((clock() * 1000).rounded() / 1000)
        do {
            file.append(Array((try JSONValue.object(line).text() + "\n").utf8))
        } catch {
            file.lose("\(error)")
        }
    }
}
