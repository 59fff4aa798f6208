import Checkpointing
import Datasets
import Foundation
import LDMModel
import Support
import TensorCore

extension ModelFolder {
    /// Compares the checksums of all weights if the folder is in a checkpoint, whose manifest contains them.
    /// Other folders, such as a diffusers pipeline, have none.
    ///
    /// - Throws: `CheckpointError`, which names the first damaged tensor.
    package func verifyWeights() throws(CheckpointError) {
        let path = URL(fileURLWithPath: self.path).standardizedFileURL
        let parent = path.deletingLastPathComponent()
        guard
            CheckpointFolder.step(ofName: parent.lastPathComponent) != nil
                || CheckpointFormat.isCheckpoint(parent.path)
        else { return }
        try Checkpoint(opening: parent.path).verify(folder: path.lastPathComponent)
    }

    /// The folder of the autoencoder at a path, after its weights have been verified.
    static func verifiedAutoencoder(_ path: String) throws -> ModelFolder {
        let folder = try PipelineFolder.locateAutoencoder(path)
        try folder.verifyWeights()
        return folder
    }
}

extension PipelineFolder {
    /// Opens the same paths as `read`. Also accepts weights such as "sigma-rel-0.08", which are reconstructed
    /// from a run's snapshots, and verifies weights that are in checkpoints.
    ///
    /// - Parameter note: called with one line that describes how such weights were reconstructed, or what is
    ///   ignored.
    static func open(
        _ path: String, weights: String?, firstStage: String?, note: (String) -> Void
    ) throws -> PipelineFolder {
        guard let sigmaRel = weights.flatMap(AverageReconstruction.sigmaRel(ofName:)) else {
            let pipeline = try read(path, weights: weights, firstStage: firstStage)
            try pipeline.unet.verifyWeights()
            try pipeline.firstStage?.verifyWeights()
            if let ignored = try pipeline.unet.ignoredSettings() { note(ignored) }
            return pipeline
        }
        let average = try AverageReconstruction(sigmaRel: sigmaRel, of: path)
        try average.verify()
        note(average.summary)
        let newest = average.newest
        return try read(newest.path, weights: newest.folder, firstStage: firstStage).with(average.mixture)
    }

    /// The first stage, ready to decode; nil in pixel space. Rejects an autoencoder whose weights differ from
    /// those that the model was trained with, since it would silently decode wrong images, unless the user
    /// named it explicitly.
    ///
    /// - Parameter isGiven: whether the user named it with --first-stage.
    package func openFirstStage(dtype: DType, isGiven: Bool) throws -> FirstStage? {
        guard let stage = try loadFirstStage(dtype: dtype), let firstStage else { return nil }
        _ = try stage.pictureChannels(firstStage.path)
        guard stage.latentChannels == unetConfig.inChannels else {
            throw RunError(
                "\(firstStage.path): its latents have \(stage.latentChannels) channels, but the U-Net of \(path) works on "
                    + "\(unetConfig.inChannels); choose the first stage that it was trained with, or omit "
                    + "--first-stage if it was trained on pixels", exitStatus: ExitStatus.refused)
        }
        if let expected = firstStageReference?.weightsHash, expected != stage.weightsHash {
            let fault =
                "\(firstStage.path): has different weights than the first stage that \(path) was trained with"
            guard isGiven else {
                throw RunError(
                    "\(fault); restore them, or choose one with --first-stage", exitStatus: ExitStatus.refused
                )
            }
            printLine("Note: \(fault)")
        }
        return stage
    }
}
