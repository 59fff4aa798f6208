import Foundation

/// The cost of training up to a step: images, operations and time.
struct ReportedCost {
    /// Number of training images, counting repetitions.
    var images: Double
    /// Floating-point operations of the forward and backward passes, counted for direct convolution; nil if
    /// the records lack them, as those of older versions do.
    var operations: Double?
    /// Seconds within steps, without samples, checkpoints, startup and pauses.
    var seconds: Double

    static func + (a: ReportedCost, b: ReportedCost) -> ReportedCost {
        ReportedCost(
            images: a.images + b.images,
            operations: a.operations.flatMap { a in b.operations.map { a + $0 } },
            seconds: a.seconds + b.seconds)
    }
}

extension ReportedRun {
    /// The cost of a run's steps up to `step`, without the first stage; nil if no step was logged.
    func cost(upTo step: Int) -> ReportedCost? {
        guard let batchSize = train?.batchSize, !steps.isEmpty else { return nil }
        let images = Double(step) * Double(batchSize)
        var (seconds, before) = (0.0, 0)
        for logged in steps where before < step {
            // The steps between two records took as long as their recorded mean.
            seconds += (logged.totalSeconds.finite ?? 0) * Double(min(step, logged.step) - before)
            before = logged.step
        }
        return ReportedCost(
            images: images, operations: flopsPerImage.map { $0 * images }, seconds: seconds)
    }

    /// The total cost of training the first stage that the run uses; nil in pixel space, or if the first
    /// stage's run folder is not available.
    var firstStageCost: ReportedCost? {
        guard let path = configuration?.firstStagePath else { return nil }
        let folder =
            (path as NSString).lastPathComponent == "model"
            ? (path as NSString).deletingLastPathComponent : path
        guard let run = try? ReportedRun(folder), run.autoencoder != nil, let last = run.lastStep else {
            return nil
        }
        return run.cost(upTo: last)
    }

    /// The cost of the run up to `step`, including the training of the first stage.
    func wholeCost(upTo step: Int) -> ReportedCost? {
        guard let own = cost(upTo: step) else { return nil }
        return firstStageCost.map { own + $0 } ?? own
    }
}
