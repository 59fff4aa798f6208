import ArgumentParser
import Evaluation
import Foundation
import LDMModel
import Records

struct SampleCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sample", abstract: "Draw samples from a trained model.",
        discussion: """
            Writes one PNG a sample, and a grid of them; --format npz makes the archive that guided-diffusion's evaluator \
            takes. Sample i of a seed is the same picture on any number of ranks. Schedule, prediction type, clipping and \
            timestep spacing are those of the model's scheduler_config.json.

              disttrain sample --model runs/quickstart --count 64 --steps 50 --output samples
              disttrain launch -n 2 -- sample --model runs/quickstart --method ddpm --steps 1000 --output samples
              disttrain sample --model runs/quickstart --init-noise noise.safetensors --dump-latents out.safetensors \
                --output samples
              disttrain launch -n 2 -- sample --model runs/quickstart --count 50000 --format npz --output samples
              disttrain sample --model runs/quickstart --seeds 0-63 --output samples

            In place of samples, pictures of how the model samples:

              disttrain sample --model runs/quickstart --progress 10 --count 4 --output strips
              disttrain sample --model runs/quickstart --interpolate 3:7 --interpolate 1:2 --output between
              disttrain sample --model runs/quickstart --invert photos/ --steps 100 --output inverted
            """)

    @Option(
        help: ArgumentHelp(
            "A run, a checkpoint, a diffusers pipeline, or a UNet2DModel's folder.", valueName: "folder"))
    var model: String
    @Option(
        help: ArgumentHelp(
            "Weights of a checkpoint: unet, ema-DECAY, ema-power-WIDTH, or sigma-rel-WIDTH, made from the run's "
                + "snapshots. Default: the slowest average.", valueName: "name"))
    var weights: String?
    @Option(
        help: ArgumentHelp(
            "Autoencoder to decode with. Default: the model's own, or the one it was trained behind.",
            valueName: "folder"))
    var firstStage: String?
    @Option(
        help: ArgumentHelp(
            "Samples to draw. Default: 64, or as many as --init-noise has; of --progress 4.", valueName: "n"))
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
    @Option(
        help: ArgumentHelp(
            "One sample for each of these seeds, seed_00042.png: 0-63, or 1,5,40-44.", valueName: "list"))
    var seeds: String?
    @Option(
        parsing: .singleValue,
        help: "What is written: png, grid or npz; may be given many times. Default: png and grid.")
    var format: [SampleFormat] = []
    @Option(
        help: ArgumentHelp(
            """
            Write progress.png instead: so many moments of the denoising, above each x_t, below the predicted x_0.
            """, valueName: "n"))
    var progress: Int?
    @Option(
        parsing: .singleValue,
        help: ArgumentHelp(
            "Write what lies between the noise of two seeds instead; may be given many times.",
            valueName: "seed:seed"))
    var interpolate: [String] = []
    @Option(help: ArgumentHelp("Pictures of an interpolation, its ends included.", valueName: "n"))
    var frames = 9
    @Option(
        help: ArgumentHelp(
            """
            Invert these pictures by DDIM instead, draw them from their noise again, and report the error: a folder, or \
            what `prepare` takes.
            """, valueName: "folder"))
    var invert: String?
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
        guard frames > 1 else { throw ValidationError("--frames \(frames): expected at least 2") }
        if let progress, progress < 1 {
            throw ValidationError("--progress \(progress): expected at least 1")
        }
        _ = try seedList()
        _ = try pairs()
        try validateKind()
    }

    /// Checks the kind of sampling; each kind has its own options.
    private func validateKind() throws {
        let kinds = [
            progress.map { _ in "--progress" }, interpolate.isEmpty ? nil : "--interpolate",
            invert.map { _ in "--invert" },
        ].compactMap { $0 }
        guard kinds.count < 2 else {
            throw ValidationError("\(kinds.joined(separator: " and ")): expected one of them")
        }
        if seeds != nil, count != nil || initNoise != nil {
            throw ValidationError("--seeds says which samples there are: leave out --count and --init-noise")
        }
        guard let kind = kinds.first else { return }
        if !format.isEmpty || initNoise != nil || dumpLatents != nil {
            throw ValidationError("\(kind): leave out --format, --init-noise and --dump-latents")
        }
        guard kind != "--progress" else { return }
        guard method == .ddim, eta == 0 else {
            throw ValidationError("\(kind): needs --method ddim and --eta 0, without noise on the way")
        }
        if seeds != nil { throw ValidationError("\(kind): leave out --seeds") }
    }

    /// Parses seeds such as "0-63" or "1,5,40-44".
    private func seedList() throws -> [UInt64]? {
        guard let seeds else { return nil }
        let most: UInt64 = 1_000_000
        var list: [UInt64] = []
        for part in seeds.split(separator: ",", omittingEmptySubsequences: false) {
            let ends = part.split(separator: "-", omittingEmptySubsequences: false).map { UInt64($0) }
            guard (1...2).contains(ends.count), let first = ends[0], let last = ends[ends.count - 1],
                first <= last, last - first < most, UInt64(list.count) + (last - first) < most
            else {
                throw ValidationError(
                    "--seeds \(seeds): expected numbers and ranges, such as 0-63 or 1,5,40-44; at most \(most)"
                )
            }
            list += first...last
        }
        guard Set(list).count == list.count else {
            throw ValidationError("--seeds \(seeds): a seed is there twice")
        }
        return list
    }

    /// The pairs of seeds to interpolate between.
    private func pairs() throws -> [(UInt64, UInt64)] {
        try interpolate.map { text in
            let ends = text.split(separator: ":", omittingEmptySubsequences: false).map { UInt64($0) }
            guard ends.count == 2, let first = ends[0], let second = ends[1] else {
                throw ValidationError("--interpolate \(text): expected two seeds, such as 3:7")
            }
            return (first, second)
        }
    }

    func run() throws {
        let settings = SamplingSettings(
            method: method, steps: steps, eta: eta, spacing: spacing, seed: seed, seeds: try seedList(),
            batchSize: batch)
        let pairs = try pairs()
        try onAllRanks(watchedBy: WatchLimits()) { communicator, watcher in
            watcher.activity.enter(.work)
            let dtype = try ComputeType.dtype(named: precision, communicator)
            let run = SampleRun(
                model: model, weights: weights, firstStage: firstStage, count: count, settings: settings,
                dtype: dtype, output: output, formats: format.isEmpty ? [.png, .grid] : Set(format),
                initialNoise: initNoise, latents: dumpLatents)
            if let progress {
                try run.writeProgress(moments: progress, communicator)
            } else if !pairs.isEmpty {
                try run.writeInterpolation(pairs, frames: frames, communicator)
            } else if let invert {
                try run.writeInversion(of: invert, communicator)
            } else {
                try run.run(communicator)
            }
        }
    }
}

extension SampleFormat: ExpressibleByArgument {}
extension SamplingSettings.Method: ExpressibleByArgument {}
extension TimestepSpacing: ExpressibleByArgument {}
