import Checkpointing
import Foundation

/// The exact per-step values in a run's `metrics.jsonl`, for comparing two runs bit by bit.
package struct MetricsTrace: Sendable {
    /// The values of a step that do not depend on its speed. NaN is stored as nil, since JSON cannot
    /// represent it.
    package static let keys = ["loss", "lr", "grad_norm"]

    struct Entry: Sendable {
        let step: Int
        /// Values in the order of `keys`.
        let values: [Double?]
    }

    let path: String
    let entries: [Entry]
    /// The steps that the run resumed from, one entry per resume.
    package let resumedSteps: [Int]

    package init(of run: RunFolder) throws(MetricsError) {
        path = run.metrics
        let history = try MetricsHistory(contentsOf: run.metrics)
        entries = history.records(ofKind: "step").compactMap { record in
            record["step"]?.intValue.map { step in
                Entry(step: step, values: Self.keys.map { record[$0]?.doubleValue })
            }
        }
        resumedSteps = history.records(ofKind: "resume").compactMap { $0["step"]?.intValue }
    }

    /// The mean loss of a logged step.
    package func loss(at step: Int) -> Double? {
        entries.first { $0.step == step }.flatMap { $0.values[0] }
    }

    /// Describes where the curve deviates from the steps 1 to `count`, each once and in order; nil if it does
    /// not.
    package func disorder(steps count: Int) -> String? {
        for (index, entry) in entries.enumerated() where entry.step != index + 1 {
            let isRepeat = entries[..<index].contains { $0.step == entry.step }
            return isRepeat
                ? "step \(entry.step) appears twice" : "step \(entry.step) follows step \(index), a gap"
        }
        return entries.count == count ? nil : "it ends with step \(entries.count), expected \(count)"
    }

    /// Describes the first difference from another run's curve; nil if all `count` steps are equal and in
    /// order.
    package func firstDifference(from expected: MetricsTrace, steps count: Int) -> String? {
        if let disorder = disorder(steps: count) { return disorder }
        guard expected.entries.map(\.step) == entries.map(\.step) else {
            return "\(expected.path) has \(expected.entries.count) steps, expected \(count)"
        }
        for (entry, other) in zip(entries, expected.entries) {
            for (key, (found, wanted)) in zip(Self.keys, zip(entry.values, other.values))
            where found != wanted {
                return "\(key) of step \(entry.step) is \(Self.text(found)), expected \(Self.text(wanted))"
            }
        }
        return nil
    }

    private static func text(_ value: Double?) -> String { value.map { "\($0)" } ?? "not a number" }
}

extension MetricsHistory {
    /// Bytes at the end of a file that are searched for its last complete line.
    private static let tail = 8192

    /// The last step that a run has logged, or 0 if there is none. Reads only the end of the file, so the
    /// cost does not depend on its length; safe to call while the run writes.
    package static func lastStep(of run: RunFolder) -> Int {
        guard let file = FileHandle(forReadingAtPath: run.metrics) else { return 0 }
        defer { try? file.close() }
        guard let size = try? file.seekToEnd(),
            (try? file.seek(toOffset: size - min(size, UInt64(tail)))) != nil,
            let data = try? file.readToEnd()
        else { return 0 }
        let history = MetricsHistory(parsing: data)
        return history.records(ofKind: "step").last?["step"]?.intValue ?? 0
    }
}
