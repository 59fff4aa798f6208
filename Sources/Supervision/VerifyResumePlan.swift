/// What the runs of `verify-resume` do when.
package struct VerifyResumePlan {
    /// Of the whole run.
    package let steps: Int
    /// The step after which a run is killed, or as soon after it as a checkpoint has been committed.
    package let killAt: Int
    package let ranks: Int
    package let resumeRanks: Int
    /// `optimizer.warmup_steps` of the configuration, whose run is longer.
    package var warmupSteps = 0

    package init(steps: Int, killAt: Int, ranks: Int, resumeRanks: Int, warmupSteps: Int = 0) {
        self.steps = steps
        self.killAt = killAt
        self.ranks = ranks
        self.resumeRanks = resumeRanks
        self.warmupSteps = warmupSteps
    }

    /// Room for a checkpoint, a step to be killed in, and the same once more.
    package static let fewestSteps = 6
    package static let firstKill = 3

    /// Steps between two checkpoints: the first lies at two thirds of the way to the kill, and the kill at none.
    package var checkpointEvery: Int { killAt - max(1, killAt / 3) }

    /// Where half of the steps are still to come: a fast run must not be over before it is killed.
    package static func killStep(steps: Int) -> Int { max(firstKill, steps / 2) }

    /// Settings of every run, after the user's.
    package var settings: [String] {
        [
            "train.steps=\(steps)", "train.checkpoint_every=\(checkpointEvery)", "train.log_every=1",
            "train.sample_every=0", "checkpoint.keep_last=1",
            "optimizer.warmup_steps=\(min(warmupSteps, steps))",
            // What is proven here is nobody's experiment.
            "logging.tensorboard=false", "logging.wandb=off",
        ]
    }
}
