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

/// Writes `metrics.jsonl`: a JSON object a line, of which the file never holds half. For one rank.
///
/// Kinds of line: `run` (the first), `step`, `resume`, and whatever else `append(kind:)` is given.
package final class MetricsLog {
    /// Lines that could not be written, and are not kept for later either.
    package var lostLines: Int { file.lost }

    let file: AppendedFile
    private let clock: () -> Double

    /// Opens the file, cut back to where the run goes on.
    ///
    /// - Parameters:
    ///   - resumedStep: the step of the checkpoint that was loaded; nil starts the file anew.
    ///   - onProblem: called with lines that cannot be written for now, once a series.
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

    /// Tries to get all lines onto the disk.
    package func synchronize() { file.synchronize() }

    /// Waits until all lines are on the disk: a checkpoint must not outlive the curve up to it. For any thread.
    package func commit() throws(FileError) { try file.commit() }

    package func append(_ metrics: StepMetrics) { append(kind: "step", step: metrics.step, metrics.fields) }

    /// Appends a line of another kind, with the time.
    ///
    /// - Parameter step: updates made; lines beyond a resumed step are cut. nil for what has no step.
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
