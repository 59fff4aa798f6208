import Support

/// Decides whether a job that has ended is restarted, and from which checkpoint. It uses neither processes
/// nor a clock; the supervisor does.
package struct RestartPolicy: Sendable, Equatable {
    package enum Decision: Equatable, Sendable {
        /// The launcher exits with the job's exit code.
        case end(Int32)
        /// Restart after a pause in seconds.
        case restart(after: Double, from: Start)
        /// The job would fail again, or has failed too often; the reason on one line.
        case giveUp(String)
    }

    package enum Start: Equatable, Sendable {
        /// The newest complete checkpoint.
        case newest
        /// The newest checkpoint before this step, because the job has failed twice after the checkpoint of
        /// this step.
        case before(step: Int)
    }

    /// How one attempt ended.
    package struct Outcome: Equatable, Sendable {
        package var exitStatus: Int32
        /// Whether the attempt completed at least one step.
        package var hasTrained: Bool
        /// The steps of the run's current checkpoints, ascending.
        package var checkpoints: [Int]
        /// The step of a numerical fault, if known.
        package var faultStep: Int?
        /// Whether the failure is attributed to lost hosts instead of the job (`HostHealth`).
        package var hasLostHosts: Bool

        package init(
            exitStatus: Int32, hasTrained: Bool, checkpoints: [Int], faultStep: Int? = nil,
            hasLostHosts: Bool = false
        ) {
            (self.exitStatus, self.hasTrained, self.checkpoints) = (exitStatus, hasTrained, checkpoints)
            (self.faultStep, self.hasLostHosts) = (faultStep, hasLostHosts)
        }
    }

    package let maxRestarts: Int
    /// Restarts since the last committed step, without those after lost hosts.
    package private(set) var restarts = 0
    /// Restarts after lost hosts since the last committed step.
    package private(set) var restartsAfterLosses = 0
    private var committedStep: Int?
    private var failuresAtStep = 0
    /// The step of the last numerical fault; `.some(nil)` if it is unknown. A new checkpoint does not clear
    /// it, because the second attempt may commit one before it reaches the same step.
    private var faultStep: Int??

    /// Seconds before the first restart; the pause doubles with each further one.
    private static let pause = (first: 1.0, longest: 60.0)
    /// After a storage fault. Full or failing storage needs minutes to recover, and the ranks have already
    /// retried for seconds.
    private static let storagePause = (first: 10.0, longest: 300.0)
    /// After lost hosts. Their only budget is a limit on restarts without a new checkpoint, which corresponds
    /// to about two hours.
    private static let lossPause = (first: 1.0, longest: 300.0)
    package static let lossLimit = 30

    package init(maxRestarts: Int, committedStep: Int? = nil) {
        self.maxRestarts = maxRestarts
        self.committedStep = committedStep
    }

    package mutating func decide(_ outcome: Outcome, checkpoints: Int = .max) -> Decision {
        switch outcome.exitStatus {
        case ExitStatus.success, ExitStatus.runAgain, ExitStatus.usage, ExitStatus.refused:
            return .end(outcome.exitStatus)
        case ExitStatus.numericalFault:
            // A bit flip does not recur at the same step, but a divergence from a too high learning rate
            // does.
            if let faultStep, faultStep == outcome.faultStep {
                let step = outcome.faultStep.map { "at the same step (\($0))" } ?? "in a row"
                return .giveUp(
                    "the numerical fault has happened twice \(step), so it is not a bit flip; resume with a lower "
                        + "optimizer.learning_rate or clip_norm, or train.precision: fp32")
            }
            faultStep = .some(outcome.faultStep)
        default: break
        }
        // Without checkpoints, a restart would silently begin from the initial weights.
        if let committedStep, outcome.checkpoints.isEmpty {
            return .giveUp(
                "the run's checkpoints, up to step \(committedStep), are missing: check that their file system is "
                    + "mounted. Restore them and repeat the command, or remove the run's folder to start over"
            )
        }
        // The budget counts failures between two checkpoints: a job that makes progress may fail again.
        if let newest = outcome.checkpoints.last, newest > committedStep ?? -1 {
            (committedStep, failuresAtStep) = (newest, 0)
            (restarts, restartsAfterLosses) = (0, 0)
        }
        guard maxRestarts > 0 else { return .giveUp("restarts are disabled (--max-restarts 0)") }
        if outcome.hasLostHosts { return decideAfterLoss() }

        let isStorageFault = outcome.exitStatus == ExitStatus.storageFault
        // Storage faults and numerical faults are no evidence against the checkpoint.
        let isCrash = !isStorageFault && outcome.exitStatus != ExitStatus.numericalFault
        if outcome.hasTrained, isCrash { failuresAtStep += 1 }
        guard restarts < maxRestarts else {
            return .giveUp(
                "the limit of \(restarts) restarts without a new checkpoint is reached (--max-restarts)")
        }
        let place =
            committedStep.map { "after the checkpoint of step \($0)" } ?? "before the first checkpoint"
        guard failuresAtStep < 3 else {
            return .giveUp(
                "the job has failed \(failuresAtStep) times \(place), also when resumed from the one before")
        }
        var start = Start.newest
        // Name the step explicitly, since the attempt that goes back may fail before it has done so.
        if failuresAtStep == 2, isCrash, let committedStep {
            guard outcome.checkpoints.contains(where: { $0 < committedStep }) else {
                return .giveUp(
                    "the job has failed twice \(place), and there is no earlier one to go back to")
            }
            start = .before(step: committedStep)
        }
        let pause = Self.backoff(isStorageFault ? Self.storagePause : Self.pause, restarts)
        restarts += 1
        return .restart(after: pause, from: start)
    }

    /// Neither the job nor its checkpoint is at fault. The limit prevents an endless loop of restarts if
    /// hosts keep failing.
    private mutating func decideAfterLoss() -> Decision {
        guard restartsAfterLosses < Self.lossLimit else {
            return .giveUp(
                "hosts were lost \(restartsAfterLosses + 1) times without a new checkpoint in between")
        }
        let pause = Self.backoff(Self.lossPause, restartsAfterLosses)
        restartsAfterLosses += 1
        return .restart(after: pause, from: .newest)
    }

    private static func backoff(_ pause: (first: Double, longest: Double), _ count: Int) -> Double {
        min(pause.longest, pause.first * Double(1 << min(count, 20)))
    }
}
