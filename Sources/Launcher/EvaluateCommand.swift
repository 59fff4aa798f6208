import ArgumentParser
import Configuration
import Evaluation
import Foundation
import Imaging
import LDMModel
import Records

struct EvaluateCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "evaluate",
        abstract: "Judge a model's samples: FID, KID, precision and recall, diversity, memorisation.",
        discussion: """
            Draws samples on all ranks, compares them with a reference, prints a table and writes \
            RUN/evaluation/step-00001000-FEATURES.json with pictures. An interrupted evaluation resumes where it stopped; the numbers are the \
            same on any number of ranks. FID needs the weights of its network (docs/evaluation.md); without them the \
            same is measured of the first stage's latents, or of pixels, under other names.

              disttrain evaluate --model runs/faces --reference data/faces --count 2000
              disttrain launch -n 2 -- evaluate --model runs/faces --reference photos/ --inception inception.safetensors
              disttrain evaluate --samples pictures/ --reference celeba.npz --inception inception.safetensors \
                --output results
            """)

    @Option(
        help: ArgumentHelp(
            "A run, a checkpoint, a diffusers pipeline, or a UNet2DModel's folder.", valueName: "folder"))
    var model: String?
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
        help: ArgumentHelp("Judge these pictures in place of the model's samples.", valueName: "folder"))
    var samples: String?
    @Option(
        help: ArgumentHelp(
            """
            What to compare with: images or a prepared folder, as `prepare` takes and writes them, or an .npz file of \
            statistics of pytorch-fid or clean-fid.
            """, valueName: "path"))
    var reference: String
    @Option(
        help: ArgumentHelp("Samples to judge. Default: 10000, or all of --samples.", valueName: "n"))
    var count: Int?
    @Option(
        help: """
            inception, vae or pixel. Default: inception where its weights are given, else the first stage's latents, \
            else pixels.
            """)
    var features: FeatureKind?
    @Option(
        help: ArgumentHelp(
            """
            Autoencoder whose latents are the features vae, so that models of different first stages, or of none, are \
            compared by the same. Default: the model's own.
            """, valueName: "folder"))
    var featureStage: String?
    @Option(
        help: ArgumentHelp(
            "Weights of FID's network, converted as docs/evaluation.md describes.", valueName: "file"))
    var inception: String?
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
    @Option(help: "Key of the initial noise, and of KID's subsets.")
    var seed: UInt64 = 0
    @Option(help: ArgumentHelp("Samples denoised at once on a rank.", valueName: "n"))
    var batch = 16
    @Option(help: "What samples are drawn in: fp32, bf16 or auto. Features are fp32 always.")
    var precision = "auto"
    @Option(
        help: ArgumentHelp(
            "Folder for the result. Default: the run's folder evaluation.", valueName: "folder"))
    var output: String?
    @Option(
        help: ArgumentHelp(
            "Folder that keeps the reference's features for the next time. Default: where the result is.",
            valueName: "folder"))
    var cache: String?
    @Flag(help: "Leave out images of --samples and --reference that cannot be decoded, and count them.")
    var skipBad = false
    @Option(
        help: ArgumentHelp(
            "Largest image that is read, in millions of pixels. Default: 134.", valueName: "megapixels"))
    var maxMegapixels: Int?
    @Option(
        help: ArgumentHelp(
            "Side that the pictures of --samples are cropped and resized to. Default: the model's, or the one size that "
                + "they all have.", valueName: "pixels"))
    var size: Int?
    @Flag(help: "Keep the samples' features, a tensor [N, D] in a safetensors file beside the result.")
    var keepFeatures = false

    func validate() throws {
        if let count, count < 16 { throw ValidationError("--count \(count): expected at least 16") }
        guard steps > 0 else { throw ValidationError("--steps \(steps): expected at least 1") }
        guard eta >= 0 else { throw ValidationError("--eta \(eta): expected 0 or more") }
        guard batch > 0 else { throw ValidationError("--batch \(batch): expected at least 1") }
        try checkMegapixels(maxMegapixels)
        if let size {
            guard samples != nil else { throw ValidationError("--size: expected --samples, too") }
            guard (8...8192).contains(size) else {
                throw ValidationError("--size \(size): expected 8 to 8192")
            }
        }
        if model == nil, samples == nil { throw ValidationError("expected --model, or --samples") }
        if model == nil, output == nil {
            throw ValidationError("--samples without --model: expected --output")
        }
    }

    func run() throws {
        var request = EvaluationRequest(
            model: model, weights: weights, firstStage: firstStage, samples: samples, reference: reference,
            count: count, features: features, featureStage: featureStage, inception: inception,
            settings: SamplingSettings(
                method: method, steps: steps, eta: eta, spacing: spacing, seed: seed, batchSize: batch),
            dtype: try ComputeType.dtype(named: precision), output: output, cache: cache,
            keepsFeatures: keepFeatures)
        request.skipBad = skipBad
        request.limits = ImageLimits(megapixels: maxMegapixels)
        request.size = size
        try onAllRanks(watchedBy: WatchLimits()) { communicator, watcher in
            watcher.activity.enter(.work)
            request.dtype = try ComputeType.dtype(named: precision, communicator)
            try EvaluateRun(request).run(communicator)
        }
    }
}

extension FeatureKind: ExpressibleByArgument {}
