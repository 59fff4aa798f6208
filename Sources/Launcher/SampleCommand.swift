import ArgumentParser
import Evaluation
import Foundation
import LDMModel
import Records

struct SampleCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sample", abstract: "Generate samples with a trained model.",
        discussion: """
            Writes one PNG file per sample and a grid; --format npz writes the archive that guided-diffusion's evaluator \
            reads. For a given seed, sample i is the same image on any number of ranks. Schedule, prediction type, \
            clipping and timestep spacing are read from the model's scheduler_config.json.

              disttrain sample --model runs/quickstart --count 64 --steps 50 --output samples
              disttrain launch -n 2 -- sample --model runs/quickstart --sampler ddpm --steps 1000 --output samples
              disttrain sample --model runs/quickstart --sampler dpmpp-2m --karras --steps 20 --output samples
              disttrain sample --model runs/quickstart --init-noise noise.safetensors --dump-latents out.safetensors \\
                --output samples
              disttrain launch -n 2 -- sample --model runs/quickstart --count 50000 --format npz --output samples
              disttrain sample --model runs/quickstart --seeds 0-63 --output samples
              disttrain sample --model runs/cifar10 --class cat,dog --guidance-scale 2 --output samples
              disttrain sample --model runs/quickstart --from-image photo.png --strength 0.6 --count 8 --output variants
              disttrain sample --model runs/quickstart --from-image photo.png --mask mask.png --output repainted

            Instead of samples, visualize the sampling process:

              disttrain sample --model runs/quickstart --progress 10 --count 4 --output strips
              disttrain sample --model runs/quickstart --interpolate 3:7 --interpolate 1:2 --output between
              disttrain sample --model runs/quickstart --invert photos/ --steps 100 --output inverted
            """)

    @Option(
        help: ArgumentHelp(
            "A run, a checkpoint, a diffusers pipeline, or the folder of a UNet2DModel.", valueName: "folder")
    )
    var model: String
    @OptionGroup var sampler: SamplerOptions
    @OptionGroup var condition: ClassOptions
    @Option(
        help: ArgumentHelp(
            "Number of samples. Default: 64, or as many as in --init-noise; 4 with --progress.",
            valueName: "n"))
    var count: Int?
    @Option(
        help: ArgumentHelp(
            "Generate one sample per seed, such as seed_00042.png: 0-63, or 1,5,40-44.", valueName: "list"))
    var seeds: String?
    @Option(
        parsing: .singleValue,
        help: "Output format: png, grid or npz; can be repeated. Default: png and grid.")
    var format: [SampleFormat] = []
    @Option(
        help: ArgumentHelp(
            """
            Write progress.png instead: this number of denoising steps, with x_t above and the predicted x_0 below.
            """, valueName: "n"))
    var progress: Int?
    @Option(
        parsing: .singleValue,
        help: ArgumentHelp(
            "Interpolate between the noise of two seeds instead; can be repeated.",
            valueName: "seed:seed"))
    var interpolate: [String] = []
    @Option(help: ArgumentHelp("Images in an interpolation, including both ends.", valueName: "n"))
    var frames = 9
    @Option(
        help: ArgumentHelp(
            """
            Apply DDIM inversion to these images instead, reconstruct them from the resulting noise, and report the \
            error: a folder, or any source that `prepare` reads.
            """, valueName: "folder"))
    var invert: String?
    @Option(
        help: ArgumentHelp(
            """
            Read the initial noise from this safetensors file: tensor noise, init_noise or latents [N, C, H, W], or its \
            only tensor.
            """, valueName: "file"))
    var initNoise: String?
    @Option(
        help: ArgumentHelp(
            """
            Also write the result of denoising to this safetensors file, as latents [N, C, H, W]: scaled latents, \
            which `vae decode --scaled` decodes, or pixels in about [-1, 1].
            """, valueName: "file"))
    var dumpLatents: String?
    @Option(
        help: ArgumentHelp(
            """
            Start from these images, with noise, instead of from noise: an image file, or any source that `prepare` \
            reads. Sample i starts from image i; with more samples than images, from the first ones again.
            """, valueName: "path"))
    var fromImage: String?
    @Option(
        help: ArgumentHelp(
            "Share of the steps by which --from-image changes the images, above 0 to 1. Default: 0.6; 1 with --mask.",
            valueName: "share"))
    var strength: Double?
    @Option(
        help: ArgumentHelp(
            """
            Repaint only the white part of this image (RePaint; ddpm steps), which has the size of those of --from-image.
            """, valueName: "file"))
    var mask: String?
    @Option(
        help: ArgumentHelp(
            "With --mask: how often steps are denoised; multiplies the model evaluations.", valueName: "n"))
    var resampling = 10
    @Option(help: ArgumentHelp("With --mask: steps that are denoised again at once.", valueName: "n"))
    var jumpLength = 10
    @Option(help: ArgumentHelp("Output folder; created if missing.", valueName: "folder"))
    var output: String

    func validate() throws {
        if let count, count < 1 { throw ValidationError("--count \(count): expected at least 1") }
        guard frames > 1 else { throw ValidationError("--frames \(frames): expected at least 2") }
        if let progress, progress < 1 {
            throw ValidationError("--progress \(progress): expected at least 1")
        }
        _ = try seedList()
        _ = try pairs()
        try validateKind()
        try validateEdit()
    }

    private func validateEdit() throws {
        let (usual, mask) = (EditSettings(), mask)
        guard fromImage != nil else {
            if mask != nil { throw ValidationError("--mask: requires --from-image") }
            if strength != nil { throw ValidationError("--strength: requires --from-image") }
            return
        }
        if let strength, !(strength > 0 && strength <= 1) {
            throw ValidationError("--strength \(strength): expected more than 0 and at most 1")
        }
        for (name, value) in [("--resampling", resampling), ("--jump-length", jumpLength)]
        where !(1...1000).contains(value) {
            throw ValidationError("\(name) \(value): expected 1 to 1000")
        }
        guard mask == nil else {
            guard [nil, .ddim, .ddpm].contains(sampler.sampler) else {
                throw ValidationError(
                    "--mask: requires --sampler ddpm or ddim, found \(sampler.sampler?.rawValue ?? "")")
            }
            return
        }
        guard resampling == usual.resampling, jumpLength == usual.jumpLength else {
            throw ValidationError("--resampling and --jump-length: require --mask")
        }
    }

    /// Checks the kind of sampling; each kind has its own options.
    private func validateKind() throws {
        let kinds = [
            progress.map { _ in "--progress" }, interpolate.isEmpty ? nil : "--interpolate",
            invert.map { _ in "--invert" }, fromImage.map { _ in "--from-image" },
        ].compactMap { $0 }
        guard kinds.count < 2 else {
            throw ValidationError("\(kinds.joined(separator: " and ")): expected one of them")
        }
        if seeds != nil, count != nil || initNoise != nil {
            throw ValidationError("--seeds: selects the samples; omit --count and --init-noise")
        }
        guard let kind = kinds.first, kind != "--from-image" else { return }
        if !format.isEmpty || initNoise != nil || dumpLatents != nil {
            throw ValidationError("\(kind): omit --format, --init-noise and --dump-latents")
        }
        guard kind != "--progress" else { return }
        if kind == "--invert", let method = sampler.sampler, method != .ddim {
            throw ValidationError("--invert: requires --sampler ddim, found \(method.rawValue)")
        }
        guard sampler.sampler?.isDeterministic != false, sampler.eta == 0 else {
            throw ValidationError(
                "\(kind): requires deterministic sampling, such as --sampler ddim, and --eta 0")
        }
        if seeds != nil { throw ValidationError("\(kind): omit --seeds") }
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
            throw ValidationError("--seeds \(seeds): contains a seed twice")
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
        var settings = sampler.settings(seeds: try seedList())
        settings.classes = condition.request
        let pairs = try pairs()
        try onAllRanks(watchedBy: WatchLimits()) { communicator, watcher in
            watcher.activity.enter(.work)
            let dtype = try ComputeType.dtype(named: sampler.precision, communicator)
            let run = SampleRun(
                model: model, weights: sampler.weights, firstStage: sampler.firstStage, count: count,
                settings: settings,
                dtype: dtype, output: output, formats: format.isEmpty ? [.png, .grid] : Set(format),
                initialNoise: initNoise, latents: dumpLatents,
                edit: fromImage.map {
                    ImageEdit(
                        images: $0, mask: mask,
                        settings: EditSettings(
                            strength: strength, jumpLength: jumpLength, resampling: resampling))
                })
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
