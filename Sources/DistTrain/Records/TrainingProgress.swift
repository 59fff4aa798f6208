import Foundation

/// The progress of a training run: step, smoothed loss, learning rate, speed, and when it will be done.
///
///     step 1200/5000  loss 0.0432  lr 2.0e-04  87.3 images/s  ETA 3 h 12 min  elapsed 52 min
public final class TrainingProgress {
    private let total: Int
    private let status: StatusLine
    private let clock: () -> Double
    private let start: Double
    private var smoothedLoss: Double?
    private var pace: Pace
    private let isSupervised = LaunchRecord.attempt != nil

    /// How much of the old smoothed loss stays at each logged step.
    private static let smoothing = 0.7

    /// - Parameters:
    ///   - total: updates of the whole run.
    ///   - first: updates made before this start.
    ///   - clock: seconds, from any beginning.
    public init(
        total: Int, first: Int = 0, status: StatusLine = StatusLine(),
        clock: @escaping () -> Double = { ProcessInfo.processInfo.systemUptime }
    ) {
        self.total = total
        self.status = status
        self.clock = clock
        start = clock()
        pace = Pace(count: first, time: start)
    }

    /// Shows a logged step. Samples and checkpoints between steps count in the ETA.
    ///
    /// - Returns: what it shows, with the loss smoothed.
    @discardableResult
    public func update(
        step: Int, loss: Double, learningRate: Double, imagesPerSecond: Double, stepSeconds: Double = 0
    ) -> JobStatus.Progress {
        let now = clock()
        pace.add(count: step, time: now)
        // A loss that is no number must be seen, but not stay in the mean.
        let previous = smoothedLoss.flatMap { $0.isFinite ? $0 : nil }
        let smoothed = previous.map { Self.smoothing * $0 + (1 - Self.smoothing) * loss } ?? loss
        smoothedLoss = smoothed
        let progress = JobStatus.Progress(
            step: step, loss: smoothed, learningRate: learningRate, imagesPerSecond: imagesPerSecond,
            stepSeconds: stepSeconds, remainingSeconds: pace.seconds(for: total - step))
        // A launcher shows the line for the whole job.
        if !isSupervised {
            status.show(progress.fields(of: total) + ["elapsed \(duration(now - start))"])
        }
        return progress
    }

    func update(_ entry: Trainer.LogEntry) -> JobStatus.Progress {
        update(
            step: entry.step, loss: entry.loss, learningRate: entry.learningRate,
            imagesPerSecond: entry.imagesPerSecond, stepSeconds: entry.stepSeconds)
    }

    /// Prints a line that stays: a warning, or where a file is.
    public func note(_ line: String) { status.print(line) }

    /// Ends the line.
    public func finish() { status.finish() }
}

/// The progress of work that is counted: images prepared, samples drawn.
///
///     sample: 1024/30000 images (3 %)  12.3 images/s  ETA 39 min
public final class CountProgress {
    private let title: String
    private let unit: String
    private let total: Int
    private let status: StatusLine
    private let clock: () -> Double
    private let start: Double
    private var lastShown: Double?
    private var shownCount: Int?
    private var pace: Pace

    /// Seconds between two shows, on a terminal and elsewhere.
    private static let intervals = (terminal: 0.2, elsewhere: 10.0)

    /// - Parameter first: how much was done before this start; it does not count in the speed.
    public init(
        _ title: String, unit: String, total: Int, first: Int = 0, status: StatusLine = StatusLine(),
        clock: @escaping () -> Double = { ProcessInfo.processInfo.systemUptime }
    ) {
        self.title = title
        self.unit = unit
        self.total = total
        self.status = status
        self.clock = clock
        start = clock()
        pace = Pace(count: first, time: start)
    }

    /// Tells that `done` of the total are done; cheap to call often.
    public func update(_ done: Int) {
        guard done != shownCount else { return }
        let now = clock()
        if let lastShown {
            let interval = status.isTerminal ? Self.intervals.terminal : Self.intervals.elsewhere
            guard now - lastShown >= interval || done == total else { return }
        }
        show(done, now)
    }

    /// Shows the end and goes to the next line.
    public func finish(_ done: Int) {
        if shownCount != done { show(done, clock()) }
        status.finish()
    }

    /// Prints a line that stays.
    public func note(_ line: String) { status.print(line) }

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

/// The recent speed of something counted: over the last moments, not since the beginning, so that an estimate
/// forgets a slow start.
struct Pace {
    private var moments: [(count: Int, time: Double)]

    /// Updates that the speed is taken over.
    private static let window = 50

    init(count: Int, time: Double) { moments = [(count, time)] }

    mutating func add(count: Int, time: Double) {
        moments.append((count, time))
        if moments.count > Self.window { moments.removeFirst() }
    }

    /// Seconds that `count` more will take; nil before anything was done.
    func seconds(for count: Int) -> Double? {
        let done = moments[moments.count - 1].count - moments[0].count
        guard done > 0 else { return nil }
        return (moments[moments.count - 1].time - moments[0].time) / Double(done) * Double(count)
    }
}

/// A time as a person says it: `45 s`, `12 min`, `3 h 20 min`, `2 d 5 h`.
public func duration(_ seconds: Double) -> String {
    guard seconds.isFinite, seconds >= 0, seconds < 1e9 else { return "unknown" }
    let whole = Int(seconds.rounded())
    if whole < 100 { return "\(whole) s" }
    let minutes = (whole + 30) / 60
    if minutes < 100 { return "\(minutes) min" }
    if minutes < 48 * 60 { return "\(minutes / 60) h \(minutes % 60) min" }
    return "\(minutes / 1440) d \(minutes % 1440 / 60) h"
}
