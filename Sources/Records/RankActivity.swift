import Foundation
import Support
import Synchronization

/// The current activity of one rank. The training thread updates it; the reporting thread reads it.
package final class RankActivity: Sendable {
    /// The cases are declared in the order of a run and, within it, of a training step: of two ranks in the
    /// same step, the one in the earlier phase is behind. The raw values are those of older versions' status
    /// files.
    package enum Phase: Int, Codable, Sendable, CaseIterable {
        case start = 0
        /// A command other than training.
        case work = 20
        case openStage = 13, openData = 12, makeModel = 14, initialize = 15, openRun = 16
        case load = 1
        case openRecords = 17
        case data = 2, compute = 3, gather = 4, reduce = 5, agree = 6, update = 7
        case record = 18, sample = 9, save = 8, evaluate = 19
        case export = 10, end = 11

        /// Completes the sentence "rank 3 is …".
        package var words: String {
            switch self {
            case .start: "starting"
            case .work: "working"
            case .openStage: "loading the first stage"
            case .openData: "opening the data"
            case .makeModel: "making the model"
            case .initialize: "loading initial weights"
            case .openRun: "opening the run's folder"
            case .load: "loading a checkpoint"
            case .openRecords: "opening the records"
            case .data: "reading data"
            case .compute: "computing"
            case .gather: "waiting for weights"
            case .reduce: "waiting for gradients"
            case .agree: "waiting for the agreement on the step"
            case .update: "updating weights"
            case .record: "writing metrics"
            case .sample: "drawing samples"
            case .save: "saving a checkpoint"
            case .evaluate: "evaluating"
            case .export: "writing the model"
            case .end: "done"
            }
        }

        /// Whether the phase is part of a training step. The other phases precede the step whose number they
        /// carry.
        var isInStep: Bool {
            switch self {
            case .data, .compute, .gather, .reduce, .agree, .update: true
            default: false
            }
        }

        /// Whether the phase reads or writes files, so that an unresponsive disk blocks it.
        var usesStorage: Bool {
            switch self {
            case .start, .work, .makeModel, .compute, .gather, .reduce, .agree, .update: false
            default: true
            }
        }

        var order: Int { Self.orders[self] ?? 0 }
        private static let orders = Dictionary(
            uniqueKeysWithValues: allCases.enumerated().map { ($0.element, $0.offset) })
    }

    /// A snapshot of the activity.
    package struct Reading: Codable, Sendable, Equatable {
        package var phase: Phase
        /// Updates made, or the number of the update in progress.
        package var step: Int
        /// Incremented whenever the rank makes progress.
        package var ticks: Int
        /// Seconds since the last tick, by this rank's monotonic clock.
        package var seconds: Double
        /// `stepSeconds` is the duration of the last whole step. `ownSeconds` is a running mean of the time
        /// per step that this rank worked without waiting for others.
        package var stepSeconds: Double
        package var ownSeconds: Double

        package init(
            phase: Phase, step: Int, ticks: Int, seconds: Double, stepSeconds: Double, ownSeconds: Double
        ) {
            (self.phase, self.step, self.ticks) = (phase, step, ticks)
            (self.seconds, self.stepSeconds, self.ownSeconds) = (seconds, stepSeconds, ownSeconds)
        }
    }

    private struct State {
        var reading = Reading(phase: .start, step: 0, ticks: 0, seconds: 0, stepSeconds: 0, ownSeconds: 0)
        var since = monotonicSeconds()
        /// The value of `StorageProgress.pieces` at the last reading.
        var pieces = StorageProgress.pieces
    }
    private let state = Mutex(State())

    package init() {}

    /// Records that the rank enters a phase. Call it before any operation that may block on a disk.
    ///
    /// - Parameter step: updates made so far.
    package func enter(_ phase: Phase, step: Int? = nil) {
        state.withLock {
            $0.reading.phase = phase
            if let step { $0.reading.step = step }
            $0.reading.ticks += 1
            $0.since = monotonicSeconds()
            $0.pieces = StorageProgress.pieces
        }
    }

    /// Records progress within the current phase.
    package func tick() {
        state.withLock {
            $0.reading.ticks += 1
            $0.since = monotonicSeconds()
        }
    }

    /// Records the duration of a finished step and the part of it without waiting, both in seconds.
    package func finishStep(seconds: Double, own: Double) {
        state.withLock {
            let before = $0.reading.ownSeconds
            $0.reading.stepSeconds = seconds
            $0.reading.ownSeconds = before == 0 ? own : Self.memory * before + (1 - Self.memory) * own
        }
    }

    /// Weight of the previous value in the running mean, so that a single slow step does not mark a rank as a
    /// straggler.
    private static let memory = 0.95

    /// The current activity. In a phase that uses storage, reads and writes by any thread since the last
    /// reading count as progress. In other phases they do not, since a background save would otherwise hide a
    /// hang in training.
    package var reading: Reading {
        state.withLock {
            let pieces = StorageProgress.pieces
            if $0.reading.phase.usesStorage, pieces != $0.pieces {
                $0.reading.ticks += 1
                $0.since = monotonicSeconds()
            }
            $0.pieces = pieces
            var reading = $0.reading
            reading.seconds = monotonicSeconds() - $0.since
            return reading
        }
    }
}
