import FileFormats
import Foundation
import LDMModel
import Support
import TensorCore
import Testing
import TestSupport

/// Conversion of latent-diffusion checkpoints. Names and shapes are in Tests/Fixtures/compvis.
@Suite struct CompVisTests {
    struct Row {
        let name: String
        let shape: [Int]
        let targets: [String]
    }

    static func rows(_ model: String) throws -> [Row] {
        let bytes = try readWholeFile(fixturePath("compvis/names.json"), limit: 1 << 20)
        let table = try JSONValue(parsing: bytes[...])[model]?.arrayValue ?? []
        return table.compactMap { row in
            guard let parts = row.arrayValue, let name = parts[0].stringValue else { return nil }
            return Row(
                name: name, shape: parts[1].arrayValue?.compactMap(\.intValue) ?? [],
                targets: parts[2].arrayValue?.compactMap(\.stringValue) ?? [])
        }
    }

    /// Values that differ between tensors and elements.
    static func values(_ name: String, _ shape: [Int]) -> [Float] {
        let start = Float(name.utf8.reduce(0) { ($0 &* 31 &+ Int($1)) & 0xFFFF })
        return (0..<shape.reduce(1, *)).map { start + Float($0) / 65536 }
    }

    static func write(_ rows: [(prefix: String, rows: [Row])], to path: String, more: [String: [Float]] = [:])
        throws
    {
        var tensors: [(String, [Int], [Float])] = more.map { ($0.key, [$0.value.count], $0.value) }
        for (prefix, rows) in rows {
            for row in rows { tensors.append((prefix + row.name, row.shape, values(row.name, row.shape))) }
        }
        try SafetensorsWriter.write(tensors.map { (name: $0.0, shape: $0.1, values: $0.2) }, to: path)
    }

    static func betas(_ start: Double, _ end: Double) -> [Float] {
        (0..<1000).map {
            let root = start.squareRoot() + Double($0) / 999 * (end.squareRoot() - start.squareRoot())
            return Float(root * root)
        }
    }

    /// Compares a written model with the values of the checkpoint.
    static func check(_ rows: [Row], in folder: String, headChannels: Int = 32) throws {
        let files = try WeightFiles(path: folder)
        #expect(files.names == rows.flatMap(\.targets).sorted())
        for row in rows {
            let source = values(row.name, row.shape)
            for (part, target) in row.targets.enumerated() {
                let found = try files.floats(of: target)
                guard row.targets.count == 3 else {
                    #expect(found == source, "\(target)")
                    continue
                }
                let width = row.shape.count > 1 ? row.shape[1] : 1
                for (index, value) in found.enumerated() {
                    let (channel, column) = (index / width, index % width)
                    let row =
                        channel / headChannels * 3 * headChannels + part * headChannels + channel
                        % headChannels
                    if value != source[row * width + column] {
                        Issue.record("\(target)[\(index)] is \(value)")
                        break
                    }
                }
            }
        }
    }

    @Test func aPipelineIsConverted() throws {
        let scratch = try ScratchFolder()
        let (unet, stage) = (try Self.rows("unet"), try Self.rows("vq"))
        let path = scratch.file("model.safetensors")
        try Self.write(
            [("model.diffusion_model.", unet), ("first_stage_model.", stage)], to: path,
            more: ["betas": Self.betas(0.001, 0.02), "first_stage_model.loss.x": [1]])
        let checkpoint = try LatentDiffusionCheckpoint(path, original: nil)
        #expect(checkpoint.notes.count == 2 && !checkpoint.isAveraged)
        let output = scratch.file("out")
        #expect(try checkpoint.write(to: output, WeightFormat()) == "the pipeline")
        try Self.check(unet, in: "\(output)/unet")
        try Self.check(stage, in: "\(output)/vqvae")
        let pipeline = try PipelineFolder(pipeline: output, asked: output)
        #expect(
            pipeline.unetConfig.blockOutChannels == [32, 64] && pipeline.unetConfig.sampleSize?.width == 128)
        #expect(pipeline.unetConfig.downBlockTypes == [.plain, .attention])
        #expect(pipeline.scheduler?.betaStart == 0.001 && pipeline.scheduler?.betaEnd == 0.02)
        #expect(pipeline.scheduler?.betaSchedule == .scaledLinear && pipeline.scheduler?.stepsOffset == 1)
        guard case .vqModel(let config)? = try pipeline.firstStage?.readModelConfig() else {
            Issue.record("no VQModel")
            return
        }
        #expect(
            config.scalingFactor == 1 && config.numVQEmbeddings == 16 && config.blockOutChannels == [32, 32])
        // Nothing but the pipeline is left behind.
        #expect(try scratch.list() == ["model.safetensors", "out"])
    }

    @Test func theAverageAndTheOriginalConfigurationAreUsed() throws {
        let scratch = try ScratchFolder()
        let unet = try Self.rows("unet")
        let path = scratch.file("model.safetensors")
        // The average has the values to compare with, in the shape of the weights.
        var tensors: [(name: String, shape: [Int], values: [Float])] = []
        for row in unet {
            let name = "diffusion_model.\(row.name)"
            tensors.append(("model.\(name)", row.shape, Self.values(row.name, row.shape).map { -$0 }))
            tensors.append(
                ("model_ema.\(name.filter { $0 != "." })", row.shape, Self.values(row.name, row.shape)))
        }
        tensors.append(("model_ema.decay", [1], [0.999]))
        try SafetensorsWriter.write(tensors, to: path)
        let original = ConfigNode([
            "model": [
                "params": [
                    "linear_start": 0.0015, "linear_end": 0.0205, "timesteps": 500, "parameterization": "v",
                    "unet_config": ["params": ["image_size": 16, "num_head_channels": 64]],
                ]
            ]
        ])
        let checkpoint = try LatentDiffusionCheckpoint(path, original: original)
        #expect(checkpoint.isAveraged && checkpoint.notes.isEmpty)
        let output = scratch.file("out")
        _ = try checkpoint.write(to: output, WeightFormat())
        try Self.check(unet, in: "\(output)/unet", headChannels: 64)
        let pipeline = try PipelineFolder(pipeline: output, asked: output)
        #expect(pipeline.unetConfig.attentionHeadDim == 64 && pipeline.unetConfig.sampleSize?.height == 16)
        #expect(
            pipeline.scheduler?.numTrainTimesteps == 500 && pipeline.scheduler?.predictionType == .velocity)
        let raw = try LatentDiffusionCheckpoint(path, original: original, averaged: false)
        #expect(!raw.isAveraged)
    }

    @Test(arguments: ["vq", "kl"]) func anAutoencoderAloneIsConverted(_ kind: String) throws {
        let scratch = try ScratchFolder()
        let rows = try Self.rows(kind)
        let path = scratch.file("model.safetensors")
        try Self.write([("", rows)], to: path, more: ["loss.discriminator": [1], "scale_factor": [0.25]])
        let checkpoint = try LatentDiffusionCheckpoint(path, original: nil)
        #expect(try checkpoint.write(to: scratch.file("out"), WeightFormat()) == "the autoencoder")
        try Self.check(rows, in: scratch.file("out"))
        let model = try ModelFolder(scratch.file("out")).loadAutoencoder()
        #expect(FirstStage(model).scalingFactor == 0.25)
    }

    @Test func otherCheckpointsAreRefused() throws {
        let scratch = try ScratchFolder()
        let path = scratch.file("model.safetensors")
        let unet = try Self.rows("unet")
        func refusal(_ original: ConfigNode? = nil) throws -> String {
            do {
                _ = try LatentDiffusionCheckpoint(path, original: original)
            } catch let error as any ReportableError {
                return error.message
            }
            return "nothing is refused"
        }
        try SafetensorsWriter.write([("a", [1], [1])], to: path)
        #expect(try refusal().contains("is not a checkpoint of latent-diffusion"))
        try Self.write([("model.diffusion_model.", unet)], to: path, more: ["cond_stage_model.x": [1]])
        #expect(try refusal().contains("is a conditional model ('cond_stage_model.x')"))
        try Self.write(
            [("model.diffusion_model.", unet)], to: path,
            more: ["model.diffusion_model.context.weight": [1]])
        #expect(try refusal().contains("context.weight; only unconditional"))
        try Self.write([("model.diffusion_model.", unet)], to: path, more: ["betas": [0.1, 0.1, 0.5]])
        #expect(try refusal().contains("not linear in their square roots"))
        try Self.write([("model.diffusion_model.", unet)], to: path)
        let heads = ConfigNode(["model": ["params": ["unet_config": ["params": ["num_heads": 8]]]]])
        #expect(try refusal(heads).contains("found 8 heads in all levels"))
        let odd = ConfigNode(["model": ["params": ["unet_config": ["params": ["num_head_channels": 48]]]]])
        #expect(try refusal(odd).contains("not divisible into attention heads of 48"))
        try Self.write([("model.diffusion_model.", unet.filter { !$0.name.hasPrefix("out.2") })], to: path)
        #expect(try refusal().contains("out.2.weight"))
    }
}
