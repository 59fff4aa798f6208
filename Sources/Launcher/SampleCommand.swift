import ArgumentParser
import DistTrain
import Foundation
import LDMModel

struct SampleCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sample", abstract: "Draw samples from a trained model.",
        discussion: """
            Writes one PNG a sample, and a grid of them. Sample i of a seed is the same picture on any number of ranks.

              disttrain sample --model runs/quickstart --count 64 --steps 50 --output samples
              disttrain launch -n 2 -- sample --model runs/quickstart --method ddpm --steps 1000 --output samples
            """)

    @Option(
        help: ArgumentHelp(
            "A run, a checkpoint, a diffusers pipeline, or a UNet2DModel's folder.", valueName: "folder"))
    var model: String
    @Option(help: ArgumentHelp("Samples to draw.", valueName: "n"))
    var count = 64
    @Option(help: ArgumentHelp("Denoising steps.", valueName: "n"))
    var steps = 50
    @Option(help: "0: deterministic DDIM; 1: with as much noise as DDPM.")
    var eta = 0.0
    @Option(help: "ddim or ddpm (ancestral).")
    var method = SamplingSettings.Method.ddim
    @Option(help: "Which training timesteps are visited: leading, trailing or linspace.")
    var spacing = TimestepSpacing.leading
    @Option(help: "Key of the initial noise.")
    var seed: UInt64 = 0
    @Option(help: ArgumentHelp("Samples denoised at once on a rank.", valueName: "n"))
    var batch = 16
    @Option(help: "fp32, bf16 or auto.")
    var precision = "auto"
    @Option(
        help: ArgumentHelp("Start from the tensor \"noise\" [N, C, H, W] of this file.", valueName: "file"))
    var initNoise: String?
    @Option(help: ArgumentHelp("Also write the final latents, NCHW.", valueName: "file"))
    var dumpLatents: String?
    @Option(help: ArgumentHelp("Folder to write; made where it is not there.", valueName: "folder"))
    var output: String

    func validate() throws {
        guard count > 0 else { throw ValidationError("--count \(count): expected at least 1") }
        guard steps > 0 else { throw ValidationError("--steps \(steps): expected at least 1") }
        guard eta >= 0 else { throw ValidationError("--eta \(eta): expected 0 or more") }
        guard batch > 0 else { throw ValidationError("--batch \(batch): expected at least 1") }
    }

    func run() throws {
        let dtype = try ComputeType.dtype(named: precision)
        let settings = SamplingSettings(
            method: method, steps: steps, eta: eta, spacing: spacing, seed: seed, batchSize: batch)
        try onAllRanks { communicator in
            try SampleRun(
                model: model, count: count, settings: settings, dtype: dtype, output: output,
                initialNoise: initNoise, latents: dumpLatents
            ).run(communicator)
        }
    }
}

extension SamplingSettings.Method: ExpressibleByArgument {}
extension TimestepSpacing: ExpressibleByArgument {}
