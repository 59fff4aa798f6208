import Checkpointing
import Communication
import Configuration
import Datasets
import Evaluation
import Foundation
import LDMModel
import Records
import Support

/// Evaluates the weights in the store during a training run, on all ranks.
package struct TrainingEvaluation {
    private let settings: EvaluationConfiguration
    private let pictures: SamplePictures
    private let sampling: SamplingSettings
    private let extractor: FeatureExtractor
    private let reference: EvaluationReference
    private let identity: String
    private let weights: String
    private let communicator: Communicator

    /// Opens the reference and the feature network before the first step, so that errors in them are reported
    /// immediately; nil if evaluation is not enabled.
    ///
    /// - Parameter side: the size of a sample image.
    init?(
        _ c: Configuration, _ pictures: SamplePictures, side: Int, firstStage: FirstStage?,
        _ communicator: Communicator
    ) throws {
        guard c.evaluation.every > 0 else { return nil }
        settings = c.evaluation
        self.pictures = pictures
        self.communicator = communicator
        var sampling = c.samplingSettings
        sampling.steps = settings.steps
        self.sampling = sampling
        weights = c.ema.profiles.max()?.name ?? "unet"
        identity = contentHash([c.stableHash, String(c.seed), weights])
        let path = c.evaluation.reference ?? c.data.options.path
        let sources = try SharedSources(
            communicator.fromRoot("checking the evaluation's reference") { referenceSources(path) },
            skipBad: true, on: communicator)
        (extractor, reference) = try communicator.collectively("opening the evaluation's reference") {
            let extractor = try FeatureExtractor(
                c.evaluation.features, inception: c.evaluation.inception, firstStage: firstStage, side: side)
            let reference = try EvaluationReference(
                path, extractor, channels: pictures.channels, firstStage: firstStage, sources: sources
            ) { if communicator.isRoot { printLine("Note: evaluation: \($0)") } }
            guard reference.count == 0 || reference.count >= EvaluationConfiguration.minimumCount else {
                throw RunError(
                    "evaluation: the reference has \(reference.count) images, expected at least "
                        + "\(EvaluationConfiguration.minimumCount)")
            }
            return (extractor, reference)
        }
    }

    /// Evaluates the current weights. Collective; rank 0 writes the result.
    ///
    /// - Returns: the measured values, the same on every rank.
    func run(step: Int, in run: RunFolder, _ activity: RankActivity) throws -> EvaluationResult {
        let evaluation = Evaluation(
            samples: GeneratedImages(
                name: "step \(step)", pictures: pictures, settings: sampling, count: settings.count,
                identity: contentHash([identity, String(step)])),
            reference: reference, extractor: extractor, cache: run.evaluation, work: run.evaluation,
            seed: sampling.seed, communicator: communicator, tick: activity.tick, showsProgress: false)
        let outcome = try evaluation.run()
        let result = EvaluationResult(
            outcome, of: evaluation, step: step, weights: weights, sampler: sampling)
        try communicator.collectively("writing the evaluation of step \(step)") {
            guard communicator.isRoot else { return }
            try run.lock?.check()
            _ = try result.write(to: run.evaluation, in: run.path)
        }
        evaluation.removeSamples()
        return result
    }

    /// The path of the result of a step.
    func file(step: Int, in run: RunFolder) -> String {
        "\(run.evaluation)/\(EvaluationResult.stem(step: step, features: extractor.kind)).json"
    }
}
