import Foundation
import Synchronization

/// What one rank is doing: kept up to date by its training thread, read by the thread that tells others of it.
public final class RankActivity: Sendable {
    /// In the order of a training step, so that of two ranks in one step the lesser phase is behind.
    public enum Phase: Int, Codable, Sendable, CaseIterable {
        case start, load, data, compute, gather, reduce, agree, update, save, sample, export, end

        /// After "rank 3 is".
        public var words: String {
            switch self {
            case .start: "starting"
            case .load: "loading a checkpoint"
            case .data: "reading data"
            case .compute: "computing"
            case .gather: "waiting for weights"
            case .reduce: "waiting for gradients"
            case .agree: "waiting for the agreement on the step"
            case .update: "updating weights"
            case .save: "saving a checkpoint"
            case .sample: "drawing samples"
            case .export: "writing the model"
            case .end: "done"
            }
        }
    }

    /// One look at it.
    public struct Reading: Codable, Sendable, Equatable {
        public var phase: Phase
        /// Updates made, or about to be made.
        public var step: Int
        /// Grows with everything that happens.
        public var ticks: Int
        /// Seconds since the last tick, by this rank's own monotonic clock.
        public var seconds: Double
        /// Seconds of the last whole step; and of a step of late, those that this rank worked, waiting for nobody.
        public var stepSeconds: Double
        public var ownSeconds: Double

        public init(
            phase: Phase, step: Int, ticks: Int, seconds: Double, stepSeconds: Double, ownSeconds: Double
        ) {
            (self.phase, self.step, self.ticks) = (phase, step, ticks)
            (self.seconds, self.stepSeconds, self.ownSeconds) = (seconds, stepSeconds, ownSeconds)
        }
    }

    private struct State {
        var reading = Reading(phase: .start, step: 0, ticks: 0, seconds: 0, stepSeconds: 0, ownSeconds: 0)
        var since = monotonicSeconds()
    }
    private let state = Mutex(State())

    public init() {}

    /// The rank begins something else.
    public func enter(_ phase: Phase, step: Int? = nil) {
        state.withLock {
            $0.reading.phase = phase
            if let step { $0.reading.step = step }
            $0.reading.ticks += 1
            $0.since = monotonicSeconds()
        }
    }

    /// The rank has got further with what it does.
    public func tick() {
        state.withLock {
            $0.reading.ticks += 1
            $0.since = monotonicSeconds()
        }
    }

    /// A step is over.
    func finishStep(seconds: Double, own: Double) {
        state.withLock {
            let before = $0.reading.ownSeconds
            $0.reading.stepSeconds = seconds
            $0.reading.ownSeconds = before == 0 ? own : Self.memory * before + (1 - Self.memory) * own
        }
    }

    /// One slow step is no straggler.
    private static let memory = 0.95

    public var reading: Reading {
        state.withLock {
            var reading = $0.reading
            reading.seconds = monotonicSeconds() - $0.since
            return reading
        }
    }
}
