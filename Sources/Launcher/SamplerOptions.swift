import ArgumentParser
import Evaluation
import Imaging
import LDMModel

/// Options of commands that draw samples.
struct SamplerOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Weights of a checkpoint: unet, ema-DECAY, ema-power-WIDTH, or sigma-rel-WIDTH, computed from the run's "
                + "snapshots. Default: the slowest average.", valueName: "name"))
    var weights: String?
    @Option(
        help: ArgumentHelp(
            "Autoencoder for decoding. Default: the model's own, or the one that it was trained with.",
            valueName: "folder"))
    var firstStage: String?
    @Option(help: ArgumentHelp("Denoising steps.", valueName: "n"))
    var steps = 50
    @Option(help: "0: deterministic DDIM; 1: as much noise as DDPM.")
    var eta = 0.0
    @Option(
        name: [.long, .customLong("method")],
        help: ArgumentHelp(
            "Sampler. Default: that of the model's scheduler; ddim for a DDIMScheduler or DDPMScheduler.",
            valueName: "name"))
    var sampler: SamplerKind?
    @Flag(
        inversion: .prefixedNo,
        help: "Space the noise levels as Karras et al. (2022). Default: as the model's scheduler does.")
    var karras: Bool?
    @Option(
        help: "Timestep spacing: leading, trailing or linspace. Default: the model's own."
    )
    var spacing: TimestepSpacing?
    @Option(help: "Seed of the initial noise and of the KID subsets.")
    var seed: UInt64 = 0
    @Option(help: ArgumentHelp("Number of samples that a rank denoises at once.", valueName: "n"))
    var batch = 16
    @Option(help: "Compute type: fp32, bf16, or auto (bf16 if the processor supports it natively).")
    var precision = "auto"

    func validate() throws {
        guard steps > 0 else { throw ValidationError("--steps \(steps): expected at least 1") }
        guard eta >= 0 else { throw ValidationError("--eta \(eta): expected 0 or more") }
        guard batch > 0 else { throw ValidationError("--batch \(batch): expected at least 1") }
    }

    func settings(seeds: [UInt64]? = nil) -> SamplingSettings {
        SamplingSettings(
            method: sampler, steps: steps, eta: eta, spacing: spacing, karras: karras, seed: seed,
            seeds: seeds, batchSize: batch)
    }
}

/// Options of commands that read images.
struct ImageReadingOptions: ParsableArguments {
    @Flag(help: "Skip and list images that cannot be read, instead of failing.")
    var skipBad = false
    @Option(
        help: ArgumentHelp(
            "Maximum size of an image in megapixels. Default: 134.", valueName: "megapixels"))
    var maxMegapixels: Int?

    func validate() throws {
        guard let maxMegapixels, !ImageLimits.megapixels.contains(maxMegapixels) else { return }
        throw ValidationError(
            "--max-megapixels \(maxMegapixels): expected \(ImageLimits.megapixels.lowerBound) to "
                + "\(ImageLimits.megapixels.upperBound)")
    }

    var limits: ImageLimits { ImageLimits(megapixels: maxMegapixels) }
}

extension SamplerKind: ExpressibleByArgument {}
extension TimestepSpacing: ExpressibleByArgument {}
