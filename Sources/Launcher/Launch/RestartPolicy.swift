import DistTrain

/// Whether a job that has ended is started again, and from where. No processes and no clock: the supervisor has those.
public struct RestartPolicy: Sendable, Equatable {
    public enum Decision: Equatable, Sendable {
        /// The job's exit code is the launcher's.
        case end(Int32)
        /// After so many seconds.
        case restart(after: Double, from: Start)
        /// It would fail again, or has too often; why, in a line.
        case giveUp(String)
    }

    public enum Start: Equatable, Sendable {
        /// The newest whole checkpoint.
        case newest
        /// The one before: the job has failed twice after the newest.
        case beforeNewest
    }

    /// How a start of the job went.
    public struct Outcome: Equatable, Sendable {
        public var exitStatus: Int32
        /// Whether it had come to train.
        public var hasTrained: Bool
        /// The newest checkpoint's step by now; nil where there is none.
        public var committedStep: Int?

        public init(exitStatus: Int32, hasTrained: Bool, committedStep: Int?) {
            (self.exitStatus, self.hasTrained, self.committedStep) = (exitStatus, hasTrained, committedStep)
        }
    }

    public let maxRestarts: Int
    /// Since the last step that was committed.
    public private(set) var restarts = 0
    private var committedStep: Int?
    private var failuresAtStep = 0

    /// Seconds before the first restart; each further one waits twice as long.
    private static let pause = (first: 1.0, longest: 60.0)

    public init(maxRestarts: Int, committedStep: Int? = nil) {
        self.maxRestarts = maxRestarts
        self.committedStep = committedStep
    }

    public mutating func decide(_ outcome: Outcome, checkpoints: Int = .max) -> Decision {
        switch outcome.exitStatus {
        case ExitStatus.success, ExitStatus.runAgain, ExitStatus.usage, ExitStatus.refused,
            ExitStatus.numericalFault:
            return .end(outcome.exitStatus)
        default: break
        }
        // The budget is for one place: who gets on may stumble again.
        if (outcome.committedStep ?? -1) > (committedStep ?? -1) {
            (committedStep, restarts, failuresAtStep) = (outcome.committedStep, 0, 0)
        }
        if outcome.hasTrained { failuresAtStep += 1 }
        guard restarts < maxRestarts else {
            return .giveUp(
                maxRestarts == 0
                    ? "no restart was asked for (--max-restarts)"
                    : "\(restarts) restarts without a new checkpoint are enough (--max-restarts)")
        }
        let place =
            committedStep.map { "after the checkpoint of step \($0)" } ?? "before the first checkpoint"
        guard failuresAtStep < 3 else {
            return .giveUp("the job has failed \(failuresAtStep) times \(place), also from the one before")
        }
        if failuresAtStep == 2, outcome.committedStep != nil, checkpoints < 2 {
            return .giveUp("the job has failed twice \(place), and there is no earlier one to go back to")
        }
        let pause = min(Self.pause.longest, Self.pause.first * Double(1 << min(restarts, 20)))
        restarts += 1
        let goesBack = failuresAtStep == 2 && outcome.committedStep != nil
        return .restart(after: pause, from: goesBack ? .beforeNewest : .newest)
    }
}
