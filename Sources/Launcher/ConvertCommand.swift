import ArgumentParser
import Configuration
import FileFormats
import Foundation
import LDMModel
import Support

struct ConvertCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "convert", abstract: "Convert a latent-diffusion checkpoint to a diffusers folder.",
        discussion: """
            Reads a checkpoint of CompVis' latent-diffusion (.ckpt, .pt or .safetensors) with an unconditional \
            U-Net, an autoencoder (KL or VQ), or both. Writes a pipeline, which `sample --model` and `train \
            --init-from` open, or an autoencoder's folder, which `prepare --first-stage` opens; that of a pipeline \
            is vqvae/ in it. Files of PyTorch are read without executing anything in them.
              disttrain convert model.ckpt --config config.yaml --output celebahq
              disttrain sample --model celebahq --count 16 --output pictures
            Without --config, a file config.yaml next to the checkpoint is used if there is one. The averaged \
            weights are converted if the checkpoint has them.
            """)

    @Argument(help: ArgumentHelp("The checkpoint.", valueName: "file"))
    var checkpoint: String

    @Option(
        help: ArgumentHelp(
            "The model's original configuration, a YAML file with a section `model`. Default: config.yaml next to "
                + "the checkpoint; without one, the usual values of unconditional models.", valueName: "file")
    )
    var config: String?

    @Flag(help: "Convert the weights of the last step instead of their average.")
    var raw = false

    @Option(help: "Type of the written weights: fp32, fp16 or bf16.")
    var dtype = WeightType.fp32

    @Option(help: ArgumentHelp("Output folder; an existing pipeline is replaced.", valueName: "folder"))
    var output: String

    func run() throws {
        try onAllRanks { communicator in
            try communicator.collectively("converting \(checkpoint)") {
                guard communicator.isRoot else { return }
                try convert()
            }
        }
    }

    private func convert() throws {
        let folder = (checkpoint as NSString).deletingLastPathComponent
        let neighbour = (folder as NSString).appendingPathComponent("config.yaml")
        let file = config ?? (FileManager.default.fileExists(atPath: neighbour) ? neighbour : nil)
        let original = try file.map { try YAMLNode.parse(ConfigurationFile.read($0), source: $0) }
        let model = try LatentDiffusionCheckpoint(checkpoint, original: original, averaged: !raw)
        for note in model.notes { printLine("Note: \(note)") }
        let what = try model.write(to: output, WeightFormat(dtype: dtype.stored))
        let weights = model.isAveraged ? " with averaged weights" : ""
        printLine("Wrote \(what) of \(checkpoint)\(weights) to \(output)")
    }
}
