import Communication
import DistTrain
import Foundation
import Support

/// Writes the spans of all ranks into one file for chrome://tracing or Perfetto, with one process per rank.
///
/// Format: "Trace Event Format", complete events ("ph": "X"), times in microseconds.
package final class ChromeTrace {
    private let origin: ContinuousClock.Instant
    private let rank: Int
    private var events: [JSONValue] = []

    /// Times are relative to this call, so every rank creates its trace immediately after a barrier.
    package init(rank: Int) {
        origin = .now
        self.rank = rank
        events.append(
            .object([
                "name": .string("process_name"), "ph": .string("M"), "pid": .integer(rank),
                "args": .object(["name": .string("rank \(rank)")]),
            ]))
    }

    package func add(_ span: TraceSpan) {
        let seconds = (span.end - span.start).seconds
        var event: JSONObject = [
            "name": .string(span.name), "cat": .string(span.category), "ph": .string("X"),
            "pid": .integer(rank), "tid": .integer(0), "ts": Self.microseconds((span.start - origin).seconds),
            "dur": Self.microseconds(seconds),
        ]
        var details: JSONObject = ["work": .string(span.category)]
        if span.flops > 0 {
            details["GFLOP/s"] = .number((Double(span.flops) / max(seconds, 1e-9) / 1e8).rounded() / 10)
        }
        event["args"] = .object(details)
        events.append(.object(event))
    }

    /// Rank 0 writes the events of all ranks. Collective.
    ///
    /// - Throws: a communication error, or an error while writing the file.
    package func write(to path: String, _ communicator: Communicator) throws {
        let lines = try events.map { try $0.text() }.joined(separator: ",\n")
        guard let everyone = try communicator.gather([UInt8](lines.utf8), root: 0) else { return }
        let body = everyone.map { String(decoding: $0, as: UTF8.self) }.joined(separator: ",\n")
        try Data("{\"traceEvents\": [\n\(body)\n]}\n".utf8).write(to: URL(fileURLWithPath: path))
    }

    private static func microseconds(_ seconds: Double) -> JSONValue {
        .number((seconds * 1e7).rounded() / 10)
    }
}
