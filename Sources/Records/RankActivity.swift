import Foundation
import Support
import Synchronization

/// What one rank is doing: kept up to date by its training thread, read by the thread that reports it.
package final class RankActivity: Sendable {
    /// In the order of a run and, within it, of a training step, so that of two ranks in one step the one with the
    /// earlier phase is behind. The numbers are those of older versions' status files.
    package enum Phase: Int, Codable, Sendable, CaseIterable {
        case start = 0
        /// A command that does not train.
        case work = 20
        case openStage = 13, openData = 12, makeModel = 14, initialize = 15, openRun = 16
        case load = 1
        case openRecords = 17
        case data = 2, compute = 3, gather = 4, reduce = 5, agree = 6, update = 7
        case record = 18, sample = 9, save = 8, evaluate = 19
        case export = 10, end = 11

        /// After "rank 3 is".
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

        /// Whether it is part of a training step. The others come before the step whose number they bear.
        var isInStep: Bool {
            switch self {
            case .data, .compute, .gather, .reduce, .agree, .update: true
            default: false
            }
        }

        /// Whether it reads or writes files, so that a disk that does not answer stops it.
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

    /// One look at it.
    package struct Reading: Codable, Sendable, Equatable {
        package var phase: Phase
        /// Updates made, or about to be made.
        package var step: Int
        /// Grows with everything that happens.
        package var ticks: Int
        /// Seconds since the last tick, by this rank's own monotonic clock.
        package var seconds: Double
        /// Seconds of the last whole step; and of a step of late, those that this rank worked, waiting for nobody.
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
        /// Of `StorageProgress`, when last looked at.
        var pieces = StorageProgress.pieces
    }
    private let state = Mutex(State())

    package init() {}

    /// The rank begins something else. Has to be called before anything that may wait for a disk.
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

    /// The rank has got further with what it does.
    package func tick() {
        state.withLock {
            $0.reading.ticks += 1
            $0.since = monotonicSeconds()
        }
    }

    /// A step is over.
    package func finishStep(seconds: Double, own: Double) {
        state.withLock {
            let before = $0.reading.ownSeconds
            $0.reading.stepSeconds = seconds
            $0.reading.ownSeconds = before == 0 ? own : Self.memory * before + (1 - Self.memory) * own
        }
    }

    /// One slow step is no straggler.
    private static let memory = 0.95

    /// What the rank is doing now. In a phase that uses storage, what any thread has read or written since the last look
    /// counts as progress; in others it does not, or a save in the background would hide that training hangs.
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
