import Checkpointing
import Foundation
import LDMModel
import Support

/// `disttrain checkpoint export`: a diffusers folder from any checkpoint.
package struct CheckpointExport {
    let model: String
    let weights: String?
    let average: (sigmaRel: Double, step: Int?)?
    let firstStage: String?
    let format: WeightFormat
    let output: String

    /// - Parameters:
    ///   - model: a run, a checkpoint, or whatever else `PipelineFolder.read` opens.
    ///   - weights: "unet", "ema-DECAY" or "ema-power-WIDTH"; nil for the slowest average.
    ///   - average: in their place one of this relative width, made from what the run keeps up to a step, or to the last.
    ///   - firstStage: in place of the one that the run was trained behind.
    ///   - format: of the trained model's weights; a first stage's files are copied as they are.
    package init(
        model: String, weights: String?, average: (sigmaRel: Double, step: Int?)? = nil, firstStage: String?,
        format: WeightFormat, output: String
    ) {
        self.model = model
        self.weights = weights
        self.average = average
        self.firstStage = firstStage
        self.format = format
        self.output = output
    }

    /// Writes the folder, whole or not at all, one tensor of the model in memory at a time. A run that is in use is not
    /// given another model.
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
            try verify(folder, average)
            return try write(autoencoder: folder, average?.mixture)
        }
        var pipeline = try PipelineFolder.read(place, weights: weights, firstStage: firstStage)
        if let average { pipeline = pipeline.with(average.mixture) }
        if pipeline.scheduler == nil {
            printLine("Note: \(model) names no scheduler; DDIMScheduler's defaults are written")
        }
        try verify(pipeline.unet, average)
        // Opened to see that it is the one; what is copied is its files.
        _ = try pipeline.openFirstStage(dtype: .float32, isGiven: firstStage != nil)
        try pipeline.write(to: output, format)
        let step = pipeline.step.map { " of step \($0)" } ?? ""
        let source = average == nil ? pipeline.unet.path : pipeline.weightsName
        printLine("Wrote the pipeline of \(source)\(step) to \(output)")
    }

    /// Writes the autoencoder of a run or a checkpoint of `vae train`.
    private func write(autoencoder folder: ModelFolder, _ mixture: WeightMixture?) throws {
        try ModelFolder(output).write(autoencoderOf: folder, format, mixture: mixture)
        printLine("Wrote the first stage of \(mixture?.name ?? folder.path) to \(output)")
        printLine("Note: its scaling_factor is the configuration's; a run measures it when it ends")
    }

    /// Compares the checksums of the weights, where they lie in a checkpoint.
    private func verify(_ folder: ModelFolder, _ average: AverageReconstruction?) throws {
        if let average { try average.verify() } else { try folder.verifyWeights() }
    }
}
