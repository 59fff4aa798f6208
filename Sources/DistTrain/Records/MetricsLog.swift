import Foundation
import LDMModel

/// Why the metrics file cannot be opened, in one line.
public struct MetricsError: ReportableError, Equatable {
    public let path: String
    public let detail: String

    public var message: String { "\(path): \(detail)" }
    public var exitStatus: Int32 { ExitStatus.usage }
}

/// Writes `metrics.jsonl`: a JSON object a line, of which the file never holds half. For one rank.
///
/// Kinds of line: `run` (the first), `step`, `resume`, and whatever else `append(kind:)` is given. A line that
/// cannot be written, on a full disk say, is reported and does not stop a training of days; what was written of it
/// is taken back.
public final class MetricsLog {
    public let path: String
    /// Lines that could not be written.
    public private(set) var lostLines = 0

    private let descriptor: Int32
    /// Bytes of whole lines.
    private var size: Int
    private var isFailing = false
    private let onProblem: (String) -> Void
    private let clock: () -> Double

    /// Opens the file, cut back to where the run goes on.
    ///
    /// - Parameters:
    ///   - resumedStep: the step of the checkpoint that was loaded; nil starts the file anew.
    ///   - onProblem: told of lines that could not be written, once a series.
    ///   - clock: seconds since 1970.
    public init(
        path: String, run: RunDescription, resumedStep: Int? = nil,
        onProblem: @escaping (String) -> Void,
        clock: @escaping () -> Double = { Date().timeIntervalSince1970 }
    ) throws(MetricsError) {
        self.path = path
        self.onProblem = onProblem
        self.clock = clock
        let kept =
            if let resumedStep {
                MetricsHistory.keptPrefix(of: try MetricsHistory.read(path) ?? Data(), through: resumedStep)
            } else {
                0
            }
        descriptor = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0o644)
        size = kept
        guard descriptor >= 0 else {
            throw MetricsError(path: path, detail: "cannot be opened for writing: \(systemReason())")
        }
        // One change of the file's length, which happens whole or not at all, and is on the disk before the run goes
        // on: the curve never forks.
        guard ftruncate(descriptor, off_t(kept)) == 0, fsync(descriptor) == 0 else {
            let reason = systemReason()
            close(descriptor)
            throw MetricsError(path: path, detail: "cannot be cut back to the resumed step: \(reason)")
        }
        if kept == 0 { append(kind: "run", step: nil, run.fields) }
        if let resumedStep { append(kind: "resume", step: resumedStep, run.fields) }
    }

    deinit { close(descriptor) }

    /// Waits until all lines are on the disk: a checkpoint must not outlive the curve up to it.
    public func synchronize() {
        if fdatasync(descriptor) == 0 { return }
        onProblem("\(path): may lack lines after a power cut: \(systemReason())")
    }

    public func append(_ metrics: StepMetrics) { append(kind: "step", step: metrics.step, metrics.fields) }

    /// Appends a line of another kind, with the time.
    ///
    /// - Parameter step: updates made; lines beyond a resumed step are cut. nil for what has no step.
    public func append(kind: String, step: Int?, _ fields: JSONObject) {
        var line: JSONObject = ["kind": .string(kind)]
        if let step { line["step"] = .integer(step) }
        for member in fields.members { line[member.key] = member.value }
        line["time"] = .finite((clock() * 1000).rounded() / 1000)
        do {
            write(Array((try JSONValue.object(line).text() + "\n").utf8))
        } catch {
            lose("\(error)")
        }
    }

    private func write(_ line: [UInt8]) {
        var written = 0
        while written < line.count {
            let count = line[written...].withUnsafeBytes {
                pwrite(descriptor, $0.baseAddress, $0.count, off_t(size + written))
            }
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else {
                let reason = systemReason()
                // Also without room, a file can be made shorter.
                _ = ftruncate(descriptor, off_t(size))
                return lose(reason)
            }
            written += count
        }
        size += line.count
        if isFailing {
            isFailing = false
            onProblem("\(path): can be written again; \(lostLines) lines were lost so far")
        }
    }

    private func lose(_ reason: String) {
        lostLines += 1
        if !isFailing { onProblem("\(path): a line could not be written and is lost: \(reason)") }
        isFailing = true
    }
}
