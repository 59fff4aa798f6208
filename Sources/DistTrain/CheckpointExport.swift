import Checkpointing
import Foundation
import LDMModel
import Support

/// `disttrain checkpoint export`: exports any checkpoint as a diffusers folder.
package struct CheckpointExport {
    let model: String
    let weights: String?
    let average: (sigmaRel: Double, step: Int?)?
    let firstStage: String?
    let format: WeightFormat
    let output: String
    let card: Card?

    /// A README.md for the Hugging Face hub beside the model.
    package struct Card {
        /// The hub's identifier of a license; nil if none is stated.
        let license: String?

        package init(license: String?) { self.license = license }
    }

    /// - Parameters:
    ///   - model: a run, a checkpoint, or anything else that `PipelineFolder.read` opens.
    ///   - weights: "unet", "ema-DECAY" or "ema-power-WIDTH"; nil for the slowest average.
    ///   - average: exports instead an average of this relative width, computed from the run's snapshots up to
    ///     a step; nil for the last step.
    ///   - firstStage: replaces the first stage that the run was trained with.
    ///   - format: the format of the trained model's weights; files of a first stage are copied unchanged.
    package init(
        model: String, weights: String?, average: (sigmaRel: Double, step: Int?)? = nil, firstStage: String?,
        format: WeightFormat, output: String, card: Card? = nil
    ) {
        (self.model, self.weights, self.average) = (model, weights, average)
        (self.firstStage, self.format, self.output) = (firstStage, format, output)
        self.card = card
    }

    /// Writes the folder completely or not at all, with one tensor of the model in memory at a time. Does not
    /// replace the model of a run that is in use.
    package func run() throws {
        try RunLock.holding(RunFolder.run(ofModel: output), note: { printLine("Note: \($0)") }) {
            try write()
        }
    }

    private func write() throws {
        let average = try average.map {
            try AverageReconstruction(sigmaRel: $0.sigmaRel, of: model, atStep: $0.step)
        }
        if let average { printLine("Note: \(average.summary)") }
        let (place, weights) = average?.newest ?? (model, self.weights)
        if let folder = try PipelineFolder.trainedAutoencoder(place, weights: weights) {
            guard card == nil else {
                throw RunError(
                    "--model-card: only for diffusion models, but \(model) is a run of `vae train`")
            }
            try verify(folder, average)
            return try write(autoencoder: folder, average?.mixture)
        }
        var pipeline = try PipelineFolder.read(place, weights: weights, firstStage: firstStage)
        if let average { pipeline = pipeline.with(average.mixture) }
        if pipeline.scheduler == nil {
            printLine("Note: \(model) has no scheduler configuration; DDIMScheduler's defaults are written")
        }
        try verify(pipeline.unet, average)
        // Open it only to verify that it is the right one; its files are copied.
        _ = try pipeline.openFirstStage(dtype: .float32, isGiven: firstStage != nil)
        try pipeline.write(to: output, format) { draft in
            try card.map { ModelCard(of: pipeline, output: output, license: $0.license) }?.write(to: draft)
        }
        let step = pipeline.step.map { " of step \($0)" } ?? ""
        let source = average == nil ? pipeline.unet.path : pipeline.weightsName
        printLine("Wrote the pipeline of \(source)\(step) to \(output)")
    }

    /// Writes the autoencoder of a run or a checkpoint of `vae train`.
    private func write(autoencoder folder: ModelFolder, _ mixture: WeightMixture?) throws {
        try ModelFolder(output).write(autoencoderOf: folder, format, mixture: mixture)
        printLine("Wrote the first stage of \(mixture?.name ?? folder.path) to \(output)")
        printLine("Note: its scaling_factor is that of the configuration; a run measures it only at its end")
    }

    /// Verifies the checksums of the weights if they are in a checkpoint.
    private func verify(_ folder: ModelFolder, _ average: AverageReconstruction?) throws {
        if let average { try average.verify() } else { try folder.verifyWeights() }
    }
}
