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
        abstract: "Evaluate a model's samples: FID, KID, precision and recall, diversity, memorisation.",
        discussion: """
            Generates samples on all ranks, compares them with a reference, prints a table and writes \
            RUN/evaluation/step-00001000-FEATURES.json and images. An interrupted evaluation resumes where it stopped; \
            the results are the same on any number of ranks. FID needs the weights of the Inception network \
            (docs/evaluation.md); without them, the same metrics are computed on latents of the first stage or on \
            pixels, under other names.

              disttrain evaluate --model runs/faces --reference data/faces --count 2000
              disttrain launch -n 2 -- evaluate --model runs/faces --reference photos/ --inception inception.safetensors
              disttrain evaluate --samples pictures/ --reference celeba.npz --inception inception.safetensors \\
                --output results
            """)

    @Option(
        help: ArgumentHelp(
            "A run, a checkpoint, a diffusers pipeline, or the folder of a UNet2DModel.", valueName: "folder")
    )
    var model: String?
    @OptionGroup var sampler: SamplerOptions
    @OptionGroup var condition: ClassOptions
    @Option(
        help: ArgumentHelp(
            "Evaluate these images instead of the model's samples: a folder, an archive, or an .npz or .npy file.",
            valueName: "path"))
    var samples: String?
    @Option(
        help: ArgumentHelp(
            """
            Reference: images or a prepared folder, as `prepare` reads and writes them, or an .npz file with statistics \
            from pytorch-fid or clean-fid.
            """, valueName: "path"))
    var reference: String
    @Option(
        help: ArgumentHelp(
            "Number of samples to evaluate. Default: 10000, or all of --samples.", valueName: "n"))
    var count: Int?
    @Option(
        help: """
            Features: inception, vae or pixel. Default: inception if its weights are given, otherwise vae if there is \
            a first stage, otherwise pixel.
            """)
    var features: FeatureKind?
    @Option(
        help: ArgumentHelp(
            """
            Autoencoder for the vae features, to compare models with different first stages or without one. Default: \
            the model's own.
            """, valueName: "folder"))
    var featureStage: String?
    @Option(
        help: ArgumentHelp(
            "Weights of the Inception network, converted as described in docs/evaluation.md.",
            valueName: "file"))
    var inception: String?
    @Option(
        help: ArgumentHelp(
            "Output folder. Default: evaluation/ in the run's folder.", valueName: "folder"))
    var output: String?
    @Option(
        help: ArgumentHelp(
            "Folder in which the features of the reference are cached. Default: the output folder.",
            valueName: "folder"))
    var cache: String?
    @OptionGroup var images: ImageReadingOptions
    @Option(
        help: ArgumentHelp(
            "Size to which the images of --samples are cropped and resized. Default: the model's, or the common size "
                + "of all images.", valueName: "pixels"))
    var size: Int?
    @Option(
        help: ArgumentHelp(
            """
            Channels to which the images of --samples and the reference are converted: 3, or 1 for grayscale. Default: \
            the model's, or those of a prepared reference, or 3.
            """, valueName: "channels"))
    var channels: Int?
    @Flag(
        help:
            "Also save the features of the samples, a tensor [N, D], as a safetensors file next to the result."
    )
    var keepFeatures = false

    func validate() throws {
        if let count, count < 16 { throw ValidationError("--count \(count): expected at least 16") }
        if let size {
            guard samples != nil else { throw ValidationError("--size: requires --samples") }
            guard (8...8192).contains(size) else {
                throw ValidationError("--size \(size): expected 8 to 8192")
            }
        }
        if let channels {
            guard samples != nil else { throw ValidationError("--channels: requires --samples") }
            guard channels == 1 || channels == 3 else {
                throw ValidationError("--channels \(channels): expected 3, or 1 for grayscale")
            }
        }
        if model == nil, samples == nil { throw ValidationError("expected --model or --samples") }
        if model == nil, output == nil {
            throw ValidationError("--samples without --model: expected --output")
        }
    }

    func run() throws {
        var request = EvaluationRequest(
            model: model, weights: sampler.weights, firstStage: sampler.firstStage, samples: samples,
            reference: reference,
            count: count, features: features, featureStage: featureStage, inception: inception,
            settings: sampler.settings(), dtype: try ComputeType.dtype(named: sampler.precision),
            output: output, cache: cache,
            keepsFeatures: keepFeatures)
        request.settings.classes = condition.request
        request.skipBad = images.skipBad
        request.limits = images.limits
        request.size = size
        request.channels = channels
        try onAllRanks(watchedBy: WatchLimits()) { communicator, watcher in
            watcher.activity.enter(.work)
            request.dtype = try ComputeType.dtype(named: sampler.precision, communicator)
            try EvaluateRun(request).run(communicator)
        }
    }
}

extension FeatureKind: ExpressibleByArgument {}
