import Foundation
import LDMModel

/// `disttrain checkpoint export`: a diffusers folder from any checkpoint.
public struct CheckpointExport {
    let model: String
    let weights: String?
    let firstStage: String?
    let format: WeightFormat
    let output: String

    /// - Parameters:
    ///   - model: a run, a checkpoint, or whatever else `PipelineFolder.read` opens.
    ///   - weights: "unet" or "ema-DECAY"; nil for the slowest average.
    ///   - firstStage: in place of the one that the run was trained behind.
    ///   - format: of the trained model's weights; a first stage's files are copied as they are.
    public init(model: String, weights: String?, firstStage: String?, format: WeightFormat, output: String) {
        self.model = model
        self.weights = weights
        self.firstStage = firstStage
        self.format = format
        self.output = output
    }

    /// Writes the folder, whole or not at all, one tensor of the model in memory at a time. A run that is in use is not
    /// given another model.
    public func run() throws {
        try RunLock.holding(RunFolder.run(ofModel: output), note: { printLine("Note: \($0)") }) {
            try write()
        }
    }

    private func write() throws {
        if try writeAutoencoder() { return }
        let pipeline = try PipelineFolder.read(model, weights: weights, firstStage: firstStage)
        if pipeline.scheduler == nil {
            printLine("Note: \(model) names no scheduler; DDIMScheduler's defaults are written")
        }
        try verify(pipeline.unet)
        // Opened to see that it is the one; what is copied is its files.
        _ = try pipeline.openFirstStage(dtype: .float32, isGiven: firstStage != nil)
        try pipeline.write(to: output, format)
        let step = pipeline.step.map { " of step \($0)" } ?? ""
        printLine("Wrote the pipeline of \(pipeline.unet.path)\(step) to \(output)")
    }

    /// Writes the autoencoder where `model` is a run or a checkpoint of `vae train`.
    private func writeAutoencoder() throws -> Bool {
        guard let folder = try PipelineFolder.trainedAutoencoder(model, weights: weights) else {
            return false
        }
        try verify(folder)
        try ModelFolder(output).write(autoencoderOf: folder, format)
        printLine("Wrote the first stage of \(folder.path) to \(output)")
        printLine("Note: its scaling_factor is the configuration's; a run measures it when it ends")
        return true
    }

    /// Compares the checksums of the weights, where they lie in a checkpoint.
    private func verify(_ folder: ModelFolder) throws {
        let path = URL(fileURLWithPath: folder.path).standardizedFileURL
        let parent = path.deletingLastPathComponent().path
        guard FileManager.default.fileExists(atPath: "\(parent)/\(CheckpointManifest.fileName)") else {
            return
        }
        try Checkpoint(opening: parent).verify(folder: path.lastPathComponent)
    }
}
