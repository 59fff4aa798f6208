import Foundation
import Support

/// The contents of a `metrics.jsonl` file, for reports and plots.
package struct MetricsHistory: Sendable {
    /// The line that describes the run; nil if it is missing.
    package let run: JSONObject?
    /// All readable lines of every kind, in file order.
    package let records: [JSONObject]
    /// Number of lines that are not JSON objects because a crash truncated them.
    package let unreadableLines: Int

    package init(contentsOf path: String) throws(MetricsError) {
        guard let data = try Self.read(path) else { throw MetricsError(path: path, detail: "does not exist") }
        self.init(parsing: data)
    }

    /// The file's bytes; nil if the file does not exist. Throws if the file cannot be read: treating it as
    /// empty would overwrite it.
    static func read(_ path: String) throws(MetricsError) -> Data? {
        guard FileManager.default.fileExists(atPath: path) else { return nil }
        do {
            return try Data(contentsOf: URL(fileURLWithPath: path))
        } catch {
            throw MetricsError(
                path: path, detail: "cannot be read: \(systemReason(of: error))", code: systemCode(of: error))
        }
    }

    package init(parsing data: Data) {
        var records: [JSONObject] = []
        var unreadable = 0
        for line in Self.lines(of: data) {
            if let object = line.object { records.append(object) } else { unreadable += 1 }
        }
        self.records = records
        unreadableLines = unreadable
        run = records.first { $0["kind"]?.stringValue == "run" }
    }

    /// The records of one kind.
    package func records(ofKind kind: String) -> [JSONObject] {
        records.filter { $0["kind"]?.stringValue == kind }
    }

    /// A value over the steps. Dots in the key address nested objects ("seconds.total"). Steps without the
    /// value are left out.
    package func series(_ key: String, kind: String = "step") -> [(step: Int, value: Double)] {
        let path = key.split(separator: ".").map(String.init)
        return records(ofKind: kind).compactMap { record in
            var value: JSONValue? = .object(record)
            for name in path { value = value?[name] }
            guard let step = record["step"]?.intValue, let number = value?.doubleValue else { return nil }
            return (step, number)
        }
    }

    // MARK: Truncation on resume

    /// Length in bytes of the prefix to keep when a run resumes from `step`: the lines before the first one
    /// of a later step, without unreadable lines at the end.
    static func keptPrefix(of data: Data, through step: Int) -> Int {
        var kept = 0
        for line in lines(of: data) {
            guard let object = line.object else { continue }
            if let found = object["step"]?.intValue, found > step { break }
            if line.isClosed { kept = line.end }
        }
        return kept
    }

    private struct Line {
        let object: JSONObject?
        /// Whether the line ends with a line feed.
        let isClosed: Bool
        /// Offset of the byte after the line.
        let end: Int
    }

    private static func lines(of data: Data) -> [Line] {
        let bytes = [UInt8](data)
        var lines: [Line] = []
        var start = 0
        while start < bytes.count {
            let feed = bytes[start...].firstIndex(of: UInt8(ascii: "\n"))
            let text = bytes[start..<(feed ?? bytes.count)]
            let end = feed.map { $0 + 1 } ?? bytes.count
            lines.append(
                Line(object: (try? JSONValue(parsing: text))?.objectValue, isClosed: feed != nil, end: end))
            start = end
        }
        return lines
    }
}
