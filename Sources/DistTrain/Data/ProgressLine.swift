import Foundation

/// How far a long command has come, on standard error: one line that is redrawn on a terminal, else a line now and
/// then.
public final class ProgressLine {
    private let title: String
    private let unit: String
    private let total: Int
    private let isTerminal: Bool
    private let interval: Double
    private let output: FileHandle
    private let start = ContinuousClock.now
    private var lastShown: ContinuousClock.Instant?
    private var lastLength = 0

    /// - Parameters:
    ///   - title: what is being done, for example "prepare".
    ///   - total: how much there is to do.
    public init(_ title: String, unit: String, total: Int, output: FileHandle = .standardError) {
        self.title = title
        self.unit = unit
        self.total = total
        self.output = output
        isTerminal = isatty(output.fileDescriptor) == 1
        interval = isTerminal ? 0.2 : 10
    }

    /// Tells that `done` of the total are done; cheap to call often.
    public func update(_ done: Int) {
        let now = ContinuousClock.now
        if let lastShown, (now - lastShown).seconds < interval { return }
        // Without a terminal the first line would say 0 of N.
        if lastShown == nil && !isTerminal && (now - start).seconds < interval { return }
        lastShown = now
        show(done, seconds: (now - start).seconds)
    }

    /// Ends the line.
    public func finish(_ done: Int) {
        if isTerminal {
            show(done, seconds: (ContinuousClock.now - start).seconds)
            output.write(Data("\n".utf8))
        } else if lastShown != nil {
            show(done, seconds: (ContinuousClock.now - start).seconds)
        }
    }

    private func show(_ done: Int, seconds: Double) {
        let text = line(done, seconds: seconds)
        if isTerminal {
            let blanks = String(repeating: " ", count: max(0, lastLength - text.count))
            output.write(Data("\r\(text)\(blanks)".utf8))
            lastLength = text.count
        } else {
            output.write(Data("\(text)\n".utf8))
        }
    }

    /// `prepare: 1024/30000 images (3 %), 12.3 images/s, 39 min left`
    public func line(_ done: Int, seconds: Double) -> String {
        var text = "\(title): \(done)/\(total) \(unit) (\(total > 0 ? 100 * done / total : 100) %)"
        guard done > 0, seconds > 0 else { return text }
        let rate = Double(done) / seconds
        text += ", \(String(format: rate < 10 ? "%.2f" : "%.1f", rate)) \(unit)/s"
        if done < total { text += ", \(Self.duration(Double(total - done) / rate)) left" }
        return text
    }

    /// A time as a person says it: `45 s`, `12 min`, `3 h 20 min`.
    public static func duration(_ seconds: Double) -> String {
        guard seconds.isFinite, seconds < 1e8 else { return "unknown time" }
        let whole = Int(seconds.rounded())
        if whole < 100 { return "\(whole) s" }
        if whole < 6000 { return "\((whole + 30) / 60) min" }
        return "\(whole / 3600) h \(whole % 3600 / 60) min"
    }
}
