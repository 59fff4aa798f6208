import Foundation
import Support

/// The progress line of a training run: step, smoothed loss, learning rate, throughput and ETA.
///
///     step 1200/5000  loss 0.0432  lr 2.0e-04  87.3 images/s  ETA 3 h 12 min  elapsed 52 min
package final class TrainingProgress {
    private let total: Int
    private let status: StatusLine
    private let clock: () -> Double
    private let start: Double
    private var smoothedLoss: Double?
    private var pace: Pace
    private let isSupervised = LaunchAttempt.isSupervised

    /// Weight of the previous smoothed loss at each logged step.
    private static let smoothing = 0.7

    /// - Parameters:
    ///   - total: number of updates of the whole run.
    ///   - first: number of updates made before this start.
    ///   - clock: seconds, from an arbitrary origin.
    package init(
        total: Int, first: Int = 0, status: StatusLine = StatusLine(),
        clock: @escaping () -> Double = { ProcessInfo.processInfo.systemUptime }
    ) {
        (self.total, self.status, self.clock) = (total, status, clock)
        start = clock()
        pace = Pace(count: first, time: start)
    }

    /// Shows a logged step. The ETA includes the time for samples and checkpoints between steps.
    ///
    /// - Returns: the displayed values, with the smoothed loss.
    @discardableResult
    package func update(
        step: Int, loss: Double, learningRate: Double, imagesPerSecond: Double, stepSeconds: Double = 0
    ) -> JobStatus.Progress {
        let now = clock()
        pace.add(count: step, time: now)
        // Show a NaN or infinite loss, but exclude it from the running mean afterwards.
        let previous = smoothedLoss.flatMap { $0.isFinite ? $0 : nil }
        let smoothed = previous.map { Self.smoothing * $0 + (1 - Self.smoothing) * loss } ?? loss
        smoothedLoss = smoothed
        let progress = JobStatus.Progress(
            step: step, loss: smoothed, learningRate: learningRate, imagesPerSecond: imagesPerSecond,
            stepSeconds: stepSeconds, remainingSeconds: pace.seconds(for: total - step))
        // Under a launcher, the launcher prints the progress line for the whole job.
        if !isSupervised {
            status.show(progress.fields(of: total) + ["elapsed \(duration(now - start))"])
        }
        return progress
    }

    /// The same for a row of metrics.
    package func update(_ row: StepMetrics) -> JobStatus.Progress {
        update(
            step: row.step, loss: row.loss, learningRate: row.learningRate,
            imagesPerSecond: row.imagesPerSecond, stepSeconds: row.totalSeconds)
    }

    /// Prints a line that stays: a warning, or where a file is.
    package func note(_ line: String) { status.print(line) }

    /// Ends the progress line.
    package func finish() { status.finish() }
}
