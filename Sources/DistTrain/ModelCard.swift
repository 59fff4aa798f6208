import Checkpointing
import Configuration
import FileFormats
import Foundation
import LDMModel
import Records
import Support

/// The README.md of an exported pipeline, with the metadata of the Hugging Face hub in its front matter, and the
/// sample grid of the run.
///
/// - Source: https://huggingface.co/docs/hub/model-cards
struct ModelCard {
    private let title: String
    private let license: String?
    private let pipeline: PipelineFolder
    /// The run that trained the model; nil for another pipeline.
    private let run: RunFolder?

    static let fileName = "README.md"
    private static let gridName = "samples.png"

    /// - Parameters:
    ///   - output: the folder that is written; its name is the title.
    ///   - license: the hub's identifier of a license, such as "mit".
    init(of pipeline: PipelineFolder, output: String, license: String?) {
        (self.pipeline, self.license) = (pipeline, license)
        title = (PipelineFolder.absolute(output) as NSString).lastPathComponent
        // RUN/checkpoints/step-…/ema-…
        let checkpoint = (PipelineFolder.absolute(pipeline.unet.path) as NSString).deletingLastPathComponent
        run = CheckpointFolder((checkpoint as NSString).deletingLastPathComponent).run.map { RunFolder($0) }
    }

    /// Writes README.md, and samples.png if the run has a grid of samples.
    func write(to folder: String) throws {
        let grid = grid
        if let grid {
            let bytes = try readWholeFile(grid, limit: 1 << 28)
            try AtomicFile.write(bytes, to: PipelineFolder.join(folder, Self.gridName))
        }
        let text = text(hasGrid: grid != nil)
        try AtomicFile.write(Array(text.utf8), to: PipelineFolder.join(folder, Self.fileName))
    }

    private func text(hasGrid: Bool) -> String {
        let isLatent = pipeline.firstStage != nil
        var lines = ["---", "library_name: diffusers"]
        if let license { lines.append("license: \(license)") }
        lines += ["pipeline_tag: unconditional-image-generation", "tags:"]
        for tag in [
            "unconditional-image-generation", "diffusers", isLatent ? "latent-diffusion" : "ddpm",
            "disttrain",
        ] {
            lines.append("- \(tag)")
        }
        lines += ["---", "", "# \(title.oneLine())", ""]
        let kind = isLatent ? "latent diffusion model" : "diffusion model in pixel space"
        let classes = pipeline.unetConfig.numClassEmbeds.map { _ in pipeline.unetConfig.classCount }
        lines.append(
            "\(classes.map { "A class-conditional (\($0) classes)" } ?? "An unconditional") \(kind), trained with disttrain."
        )
        if hasGrid { lines += ["", "![Samples](\(Self.gridName))"] }
        lines += [
            "", "## Use", "", "```python", "from diffusers import DiffusionPipeline", "",
            "pipeline = DiffusionPipeline.from_pretrained(\"path/to/this/folder\")",
            "pipeline().images[0].save(\"sample.png\")", "```", "", "## Training", "", "| | |", "|---|---|",
        ]
        lines += facts.map { "| \($0.name) | \(Self.cell($0.value)) |" }
        let metrics = metrics
        if !metrics.isEmpty {
            lines += ["", "## Evaluation", "", "| metric | value |", "|---|---|"]
            lines += metrics.map { "| \($0.name) | \(Self.cell($0.value)) |" }
        }
        return lines.joined(separator: "\n") + "\n"
    }

    /// A text from a configuration must not end its cell of the table.
    private static func cell(_ text: String) -> String {
        text.oneLine(limit: 200).replacingOccurrences(of: "|", with: "\\|")
    }

    // MARK: Facts

    private var facts: [(name: String, value: String)] {
        var facts: [(String, String)] = []
        if let step = pipeline.step { facts.append(("steps", "\(step)")) }
        let configuration = configuration
        if let configuration {
            let batch = configuration.train.batchSize
            facts.append(("batch size", "\(batch)"))
            if let step = pipeline.step { facts.append(("images seen", "\(step * batch)")) }
            let data = configuration.data
            facts.append(
                (
                    "training data",
                    data.isSynthetic
                        ? "drawn faces" : (PipelineFolder.absolute(data.path) as NSString).lastPathComponent
                ))
        }
        if let size = pipeline.unetConfig.sampleSize {
            let factor = (try? firstStageFactor()) ?? 1
            facts.append(("resolution", "\(size.width * factor)×\(size.height * factor)"))
        }
        facts.append(("weights", pipeline.weightsName))
        if let scheduler = pipeline.scheduler {
            facts.append(
                (
                    "noise schedule",
                    "\(scheduler.betaSchedule.rawValue), \(scheduler.numTrainTimesteps) timesteps"
                ))
            facts.append(("prediction", scheduler.predictionType.rawValue))
        }
        if let optimizer = configuration?.optimizer {
            facts.append(("optimizer", "AdamW, learning rate \(optimizer.learningRate)"))
        }
        if let loss = lastLoss { facts.append(("training loss", String(format: "%.4g", loss))) }
        return facts
    }

    private func firstStageFactor() throws -> Int? {
        switch try pipeline.firstStage?.readModelConfig() {
        case .autoencoderKL(let config)?: return config.downsamplingFactor
        case .vqModel(let config)?: return config.downsamplingFactor
        default: return nil
        }
    }

    private var configuration: Configuration? {
        guard let run, let yaml = try? ConfigurationFile.read(run.configuration) else { return nil }
        return try? Configuration(yaml: yaml, source: run.configuration)
    }

    /// The last logged loss up to the exported step.
    private var lastLoss: Double? {
        guard let run, let history = try? MetricsHistory(contentsOf: run.metrics) else { return nil }
        return history.series("loss").last { $0.step <= pipeline.step ?? .max }?.value
    }

    /// The newest sample grid up to the exported step.
    private var grid: String? {
        guard let run else { return nil }
        let names = (try? FileManager.default.contentsOfDirectory(atPath: run.samples)) ?? []
        let steps = names.compactMap(RunFolder.step(ofSamples:)).filter { $0 <= pipeline.step ?? .max }
        return steps.max().map(run.samples(step:))
    }

    /// The results of evaluations at the exported step.
    private var metrics: [(name: String, value: String)] {
        guard let run else { return [] }
        let names = (try? FileManager.default.contentsOfDirectory(atPath: run.evaluation)) ?? []
        return names.filter { $0.hasSuffix(".json") }.sorted().flatMap { name -> [(String, String)] in
            guard let result = try? ConfigNode(jsonFile: PipelineFolder.join(run.evaluation, name)).json,
                let step = pipeline.step, result["step"]?.intValue == step,
                let metrics = result["metrics"]?.objectValue
            else { return [] }
            let samples = result["count"]?.intValue.map { ", \($0) samples" } ?? ""
            return metrics.members.compactMap { member in
                member.value.doubleValue.map { ("\(member.key)\(samples)", String(format: "%.4g", $0)) }
            }
        }
    }
}
