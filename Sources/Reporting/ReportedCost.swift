import Foundation

/// What training came to up to a step: images, arithmetic, time.
struct ReportedCost {
    /// Images that steps were made of, each as often as it was taken.
    var images: Double
    /// Floating-point operations of forward and backward passes, by the direct algorithm; nil where the records do not
    /// tell, as those of older program versions do not.
    var operations: Double?
    /// Seconds within steps: samples, saves, starts and pauses do not count.
    var seconds: Double

    static func + (a: ReportedCost, b: ReportedCost) -> ReportedCost {
        ReportedCost(
            images: a.images + b.images,
            operations: a.operations.flatMap { a in b.operations.map { a + $0 } },
            seconds: a.seconds + b.seconds)
    }
}

extension ReportedRun {
    /// The cost of a run's steps up to one, the first stage's left out; nil where no step was logged.
    func cost(upTo step: Int) -> ReportedCost? {
        guard let batchSize = train?.batchSize, !steps.isEmpty else { return nil }
        let images = Double(step) * Double(batchSize)
        var (seconds, before) = (0.0, 0)
        for logged in steps where before < step {
            // A step between two records took as long as their mean.
            seconds += (logged.totalSeconds ?? 0) * Double(min(step, logged.step) - before)
            before = logged.step
        }
        return ReportedCost(
            images: images, operations: flopsPerImage.map { $0 * images }, seconds: seconds)
    }

    /// The whole cost of the first stage that a run works behind; nil in pixel space, and where the first stage's own
    /// run is not at hand.
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

    /// The cost of all that a model took up to a step, the first stage's training included.
    func wholeCost(upTo step: Int) -> ReportedCost? {
        guard let own = cost(upTo: step) else { return nil }
        return firstStageCost.map { own + $0 } ?? own
    }
}
