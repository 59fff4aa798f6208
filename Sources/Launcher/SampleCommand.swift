import ArgumentParser
import DistTrain
import Foundation
import LDMModel

struct SampleCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sample", abstract: "Draw samples from a trained model.",
        discussion: """
            Writes one PNG a sample, and a grid of them. Sample i of a seed is the same picture on any number of ranks.
            Schedule, prediction type, clipping and timestep spacing are those of the model's scheduler_config.json.

              disttrain sample --model runs/quickstart --count 64 --steps 50 --output samples
              disttrain launch -n 2 -- sample --model runs/quickstart --method ddpm --steps 1000 --output samples
              disttrain sample --model runs/quickstart --init-noise noise.safetensors --dump-latents out.safetensors \
                --output samples
            """)

    @Option(
        help: ArgumentHelp(
            "A run, a checkpoint, a diffusers pipeline, or a UNet2DModel's folder.", valueName: "folder"))
    var model: String
    @Option(
        help: ArgumentHelp(
            "Weights of a checkpoint: unet, or ema-DECAY. Default: the slowest average.", valueName: "name"))
    var weights: String?
    @Option(
        help: ArgumentHelp(
            "Autoencoder to decode with. Default: the model's own, or the one it was trained behind.",
            valueName: "folder"))
    var firstStage: String?
    @Option(
        help: ArgumentHelp("Samples to draw. Default: 64, or as many as --init-noise has.", valueName: "n"))
    var count: Int?
    @Option(help: ArgumentHelp("Denoising steps.", valueName: "n"))
    var steps = 50
    @Option(help: "0: deterministic DDIM; 1: with as much noise as DDPM.")
    var eta = 0.0
    @Option(help: "ddim or ddpm (ancestral).")
    var method = SamplingSettings.Method.ddim
    @Option(
        help: "Which training timesteps are visited: leading, trailing or linspace. Default: the model's own."
    )
    var spacing: TimestepSpacing?
    @Option(help: "Key of the initial noise.")
    var seed: UInt64 = 0
    @Option(help: ArgumentHelp("Samples denoised at once on a rank.", valueName: "n"))
    var batch = 16
    @Option(help: "fp32, bf16 or auto.")
    var precision = "auto"
    @Option(
        help: ArgumentHelp(
            """
            Start from this safetensors file: its tensor noise, init_noise or latents [N, C, H, W], or its only one.
            """, valueName: "file"))
    var initNoise: String?
    @Option(
        help: ArgumentHelp(
            """
            Also write what the U-Net ended with to this safetensors file, as latents [N, C, H, W]: scaled latents, \
            which `vae decode --scaled` decodes, or pixels in about [-1, 1].
            """, valueName: "file"))
    var dumpLatents: String?
    @Option(help: ArgumentHelp("Folder to write; made where it is not there.", valueName: "folder"))
    var output: String

    func validate() throws {
        if let count, count < 1 { throw ValidationError("--count \(count): expected at least 1") }
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
                model: model, weights: weights, firstStage: firstStage, count: count, settings: settings,
                dtype: dtype, output: output, initialNoise: initNoise, latents: dumpLatents
            ).run(communicator)
        }
    }
}

extension SamplingSettings.Method: ExpressibleByArgument {}
extension TimestepSpacing: ExpressibleByArgument {}
