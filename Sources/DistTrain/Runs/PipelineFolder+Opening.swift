import LDMModel
import TensorCore

extension PipelineFolder {
    /// Opens what `read` opens, also with weights such as "sigma-rel-0.08", which are made from a run's snapshots.
    ///
    /// - Parameter note: told, in a line, how these were made.
    static func open(
        _ path: String, weights: String?, firstStage: String?, note: (String) -> Void
    ) throws -> PipelineFolder {
        guard let sigmaRel = weights.flatMap(AverageReconstruction.sigmaRel(ofName:)) else {
            return try read(path, weights: weights, firstStage: firstStage)
        }
        let average = try AverageReconstruction(sigmaRel: sigmaRel, of: path)
        note(average.summary)
        let newest = average.newest
        return try read(newest.path, weights: newest.folder, firstStage: firstStage).with(average.mixture)
    }

    /// The first stage, ready to decode; nil in pixel space. An autoencoder whose weights are not those that the model
    /// was trained behind would make other pictures without a word: it is refused, unless it was named on purpose.
    ///
    /// - Parameter isGiven: the user has named it by --first-stage.
    func openFirstStage(dtype: DType, isGiven: Bool) throws -> FirstStage? {
        guard let stage = try loadFirstStage(dtype: dtype), let firstStage else { return nil }
        if let expected = firstStageReference?.weightsHash, expected != stage.weightsHash {
            let fault =
                "\(firstStage.path): has other weights than the first stage that \(path) was trained behind"
            guard isGiven else {
                throw RunError(
                    "\(fault); put those back, or name one by --first-stage", exitStatus: ExitStatus.refused)
            }
            printLine("Note: \(fault)")
        }
        return stage
    }
}
