/// The steps at which the runs of `verify-resume` end, are killed and save checkpoints.
package struct VerifyResumePlan {
    /// Steps of the complete run.
    package let steps: Int
    /// The step after which a run is killed; if no checkpoint has been committed by then, as soon as possible
    /// after one has.
    package let killAt: Int
    package let ranks: Int
    package let resumeRanks: Int
    /// `optimizer.warmup_steps` of the configuration, which is meant for a longer run.
    package var warmupSteps = 0

    package init(steps: Int, killAt: Int, ranks: Int, resumeRanks: Int, warmupSteps: Int = 0) {
        self.steps = steps
        self.killAt = killAt
        self.ranks = ranks
        self.resumeRanks = resumeRanks
        self.warmupSteps = warmupSteps
    }

    /// Leaves room for a checkpoint and a step to be killed in, twice.
    package static let fewestSteps = 6
    package static let firstKill = 3

    /// Steps between two checkpoints. The first checkpoint is at two thirds of the kill step, and no checkpoint
    /// coincides with it.
    package var checkpointEvery: Int { killAt - max(1, killAt / 3) }

    /// At least half of the steps remain after the kill, so that a fast run does not end before it is killed.
    package static func killStep(steps: Int) -> Int { max(firstKill, steps / 2) }

    /// Settings that apply to every run, after the user's.
    package var settings: [String] {
        [
            "train.steps=\(steps)", "train.checkpoint_every=\(checkpointEvery)", "train.log_every=1",
            "train.sample_every=0", "checkpoint.keep_last=1",
            "optimizer.warmup_steps=\(min(warmupSteps, steps))",
            // The runs only verify the resume and are no experiments to track.
            "logging.tensorboard=false", "logging.wandb=off",
        ]
    }
}
