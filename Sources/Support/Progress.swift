import Foundation

/// The progress of counted work: images prepared, samples drawn.
///
///     sample: 1024/30000 images (3 %)  12.3 images/s  ETA 39 min
package final class CountProgress {
    private let title: String
    private let unit: String
    private let total: Int
    private let status: StatusLine
    private let clock: () -> Double
    private let start: Double
    private var lastShown: Double?
    private var shownCount: Int?
    private var pace: Pace

    /// Seconds between two updates of the display, on a terminal and elsewhere.
    private static let intervals = (terminal: 0.2, elsewhere: 10.0)

    /// - Parameter first: the count at the start of this process; it does not contribute to the rate.
    package init(
        _ title: String, unit: String, total: Int, first: Int = 0, status: StatusLine = StatusLine(),
        clock: @escaping () -> Double = { ProcessInfo.processInfo.systemUptime }
    ) {
        (self.title, self.unit, self.total) = (title, unit, total)
        (self.status, self.clock) = (status, clock)
        start = clock()
        pace = Pace(count: first, time: start)
    }

    /// Reports that `done` of the total are done. It is cheap enough to call for every item.
    package func update(_ done: Int) {
        guard done != shownCount else { return }
        let now = clock()
        if let lastShown {
            let interval = status.isTerminal ? Self.intervals.terminal : Self.intervals.elsewhere
            guard now - lastShown >= interval || done == total else { return }
        }
        show(done, now)
    }

    /// Shows the final count and ends the line.
    package func finish(_ done: Int) {
        if shownCount != done { show(done, clock()) }
        status.finish()
    }

    /// Prints a permanent line.
    package func note(_ line: String) { status.print(line) }

    private func show(_ done: Int, _ now: Double) {
        lastShown = now
        shownCount = done
        pace.add(count: done, time: now)
        let percent = total > 0 ? 100 * done / total : 100
        var fields = ["\(title): \(done)/\(total) \(unit) (\(percent) %)"]
        if let seconds = pace.seconds(for: 1), seconds > 0 {
            let rate = 1 / seconds
            fields.append(String(format: rate < 10 ? "%.2f \(unit)/s" : "%.1f \(unit)/s", rate))
            fields.append(
                done < total
                    ? "ETA \(duration(seconds * Double(total - done)))" : "in \(duration(now - start))")
        }
        status.show(fields)
    }
}

/// The recent rate of counted work. It covers only the last updates, so that a slow start does not distort
/// the estimate.
package struct Pace {
    private var moments: [(count: Int, time: Double)]

    /// Number of updates that the rate covers.
    private static let window = 50

    package init(count: Int, time: Double) { moments = [(count, time)] }

    package mutating func add(count: Int, time: Double) {
        moments.append((count, time))
        if moments.count > Self.window { moments.removeFirst() }
    }

    /// Estimated seconds for `count` more; nil before there is any progress.
    package func seconds(for count: Int) -> Double? {
        let done = moments[moments.count - 1].count - moments[0].count
        guard done > 0 else { return nil }
        return (moments[moments.count - 1].time - moments[0].time) / Double(done) * Double(count)
    }
}
