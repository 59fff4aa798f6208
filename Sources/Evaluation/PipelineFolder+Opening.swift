import Checkpointing
import Foundation
import LDMModel
import Support
import TensorCore

extension ModelFolder {
    /// Compares the checksums of all weights where the folder lies in a checkpoint, whose manifest has them. A folder
    /// elsewhere, such as a diffusers pipeline, has none.
    ///
    /// - Throws: `CheckpointError`, naming the first tensor that is damaged.
    package func verifyWeights() throws(CheckpointError) {
        let path = URL(fileURLWithPath: self.path).standardizedFileURL
        let parent = path.deletingLastPathComponent()
        guard
            CheckpointFolder.step(ofName: parent.lastPathComponent) != nil
                || CheckpointFormat.isCheckpoint(parent.path)
        else { return }
        try Checkpoint(opening: parent.path).verify(folder: path.lastPathComponent)
    }

    /// The autoencoder's folder that a path names, with its weights verified.
    static func verifiedAutoencoder(_ path: String) throws -> ModelFolder {
        let folder = try PipelineFolder.locateAutoencoder(path)
        try folder.verifyWeights()
        return folder
    }
}

extension PipelineFolder {
    /// Opens what `read` opens, also with weights such as "sigma-rel-0.08", which are made from a run's snapshots, and
    /// verifies the weights that lie in checkpoints.
    ///
    /// - Parameter note: told, in a line, how these were made.
    static func open(
        _ path: String, weights: String?, firstStage: String?, note: (String) -> Void
    ) throws -> PipelineFolder {
        guard let sigmaRel = weights.flatMap(AverageReconstruction.sigmaRel(ofName:)) else {
            let pipeline = try read(path, weights: weights, firstStage: firstStage)
            try pipeline.unet.verifyWeights()
            try pipeline.firstStage?.verifyWeights()
            return pipeline
        }
        let average = try AverageReconstruction(sigmaRel: sigmaRel, of: path)
        try average.verify()
        note(average.summary)
        let newest = average.newest
        return try read(newest.path, weights: newest.folder, firstStage: firstStage).with(average.mixture)
    }

    /// The first stage, ready to decode; nil in pixel space. An autoencoder whose weights are not those that the model
    /// was trained behind would make other pictures without a word: it is refused, unless it was named on purpose.
    ///
    /// - Parameter isGiven: the user has named it by --first-stage.
    package func openFirstStage(dtype: DType, isGiven: Bool) throws -> FirstStage? {
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
