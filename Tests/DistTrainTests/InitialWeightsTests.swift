import Communication
import Configuration
import DistTrain
import Foundation
import LDMModel
import Testing
import TestSupport

@Suite struct InitialWeightsTests {
    /// One step that is too small to change a weight.
    private func configuration(_ name: String, seed: Int, from path: String? = nil) throws -> Configuration {
        try Configuration(
            yaml: """
                name: \(name)
                seed: \(seed)
                data: {path: synthetic-faces, size: 16, count: 4}
                model:
                    sample_size: 16
                    block_out_channels: [8, 16]
                    down_block_types: [DownBlock2D, AttnDownBlock2D]
                    up_block_types: [AttnUpBlock2D, UpBlock2D]
                    layers_per_block: 1
                    norm_num_groups: 4
                optimizer: {learning_rate: 1e-30}
                ema: {decays: [0.5, 0.9], warmup: false}
                train: {steps: 1, batch_size: 2, sample_every: 0, precision: fp32}
                """, source: "test.yaml", initFrom: path)
    }

    @Test func averagesStartWhereTheWeightsDo() throws {
        let scratch = try ScratchFolder()
        let (first, second) = (scratch.file("first"), scratch.file("second"))
        try TrainingProgram(configuration("first", seed: 1), output: first, resume: .auto).train(
            Communicator())
        try TrainingProgram(configuration("second", seed: 2, from: first), output: second, resume: .auto)
            .train(Communicator())
        let expected = try PipelineFolder.read(first).unet.loadUNet().store
        for weights in ["unet", "ema-0.5", "ema-0.9"] {
            let found = try PipelineFolder.read(second, weights: weights).unet.loadUNet().store
            for (mine, theirs) in zip(found.parameters, expected.parameters) {
                // A step changes a weight by the learning rate, and an average of equal numbers may be rounded;
                // weights of another seed would differ much more.
                let isNear = zip(mine.values, theirs.values).allSatisfy {
                    abs($0 - $1) <= abs($1) * 0x1p-22 + 1e-29
                }
                #expect(isNear, "\(weights): \(mine.name)")
            }
        }
        let metrics = try String(contentsOfFile: second + "/metrics.jsonl", encoding: .utf8)
        #expect(metrics.contains(#""init_from":""#))
    }
}
