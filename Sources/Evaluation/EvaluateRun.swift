import Communication
import Configuration
import Datasets
import FileFormats
import Foundation
import Imaging
import LDMModel
import Records
import Support
import TensorCore

/// The options of `disttrain evaluate`.
package struct EvaluationRequest: Sendable {
    /// A run, a checkpoint, a pipeline or a U-Net folder; nil if only `samples` are given.
    package var model: String?
    /// The weights to use from a checkpoint; nil: the slowest average.
    package var weights: String?
    /// The autoencoder's folder, which replaces the one that the model refers to.
    package var firstStage: String?
    /// Existing images to evaluate instead of samples of the model.
    package var samples: String?
    /// A folder or archive of images, a prepared folder, or an .npz file of statistics.
    package var reference: String
    /// Number of samples to generate, or number of existing images to use, from the first. nil: 10,000
    /// samples, or all images.
    package var count: Int?
    /// nil: Inception if its weights are given, else the first stage's latents, else pixels.
    package var features: FeatureKind?
    /// The autoencoder whose latents serve as features, instead of the model's own.
    package var featureStage: String?
    /// Weights of the Inception network for FID; see docs/evaluation.md.
    package var inception: String?
    package var settings: SamplingSettings
    package var dtype: DType
    /// Output folder; nil: the run's `evaluation` folder.
    package var output: String?
    /// Folder in which the reference's features are cached; nil: next to the result.
    package var cache: String?
    package var keepsFeatures: Bool
    /// Leave out images that cannot be decoded.
    package var skipBad = false
    /// Maximum size of images to decode.
    package var limits = ImageLimits.standard
    /// Height and width to which the images in `samples` are resized; nil: the model's size, or their common
    /// size.
    package var size: Int?
    /// Channels to which the images in `samples` and the reference are converted; nil: the model's, those of a
    /// prepared reference, or 3.
    package var channels: Int?

    package init(
        model: String?, weights: String?, firstStage: String?, samples: String?, reference: String,
        count: Int?, features: FeatureKind?, featureStage: String? = nil,
        inception: String?, settings: SamplingSettings, dtype: DType,
        output: String?, cache: String?, keepsFeatures: Bool
    ) {
        (self.model, self.weights, self.firstStage) = (model, weights, firstStage)
        (self.samples, self.reference, self.count) = (samples, reference, count)
        (self.features, self.featureStage, self.inception) = (features, featureStage, inception)
        (self.settings, self.dtype, self.output) = (settings, dtype, output)
        (self.cache, self.keepsFeatures) = (cache, keepsFeatures)
    }

    /// Default number of samples of a model.
    package static let usualCount = 10_000
    /// Default height and width for synthetic faces.
    package static let usualSide = 64
}

/// `disttrain evaluate`: evaluates a model's samples, on all ranks.
package struct EvaluateRun {
    package let request: EvaluationRequest

    package init(_ request: EvaluationRequest) { self.request = request }

    package func run(_ communicator: Communicator) throws {
        func note(_ line: String) { if communicator.isRoot { printLine("Note: \(line)") } }
        var sources = try SharedSources(
            communicator.fromRoot("opening the evaluation's inputs") {
                (request.samples.map { [$0] } ?? []) + referenceSources(request.reference)
            }, skipBad: true, limits: request.limits, on: communicator)
        if request.skipBad {
            sources = try sources.leavingOutUndecodable(on: communicator, note: note)
        }
        let sampleSize = try sizeOfSamples(sources, communicator)
        let (opened, evaluation) = try communicator.collectively("opening the evaluation's inputs") {
            let opened = try open(sampleSize, communicator, note)
            return (opened, try makeEvaluation(opened, sources, communicator, note))
        }
        let identity = UInt64(
            contentHash([
                evaluation.samples.fingerprint, evaluation.reference.fingerprint,
                evaluation.extractor.fingerprint, String(evaluation.samples.count),
            ]), radix: 16)
        guard try communicator.allEqual(identity ?? 0) else {
            throw RunError(
                "the ranks see different models or images under the same path; use paths on a file system that all "
                    + "hosts share", exitStatus: ExitStatus.refused)
        }
        if evaluation.samples.count < evaluation.extractor.dimension {
            note(
                "\(evaluation.samples.count) samples are fewer than the features' \(evaluation.extractor.dimension) "
                    + "dimensions: Fréchet distances are far too large; compare them only between equal counts"
            )
        }
        let outcome = try evaluation.run()
        try communicator.collectively("writing the result") {
            guard communicator.isRoot else { return }
            let result = try EvaluationResult(
                outcome, of: evaluation, step: opened.step, weights: opened.weights,
                sampler: (evaluation.samples as? GeneratedImages)?.settings
            ).write(to: opened.output, in: opened.base)
            printLine("\(result.result.table)\nWrote \(result.path)")
        }
        if !request.keepsFeatures { evaluation.removeSamples() }
    }

    /// The grid that `sample` writes next to the samples; it is not a sample itself.
    private static let grid = "grid.png"

    // MARK: Opening

    private struct Opened {
        var pictures: SamplePictures?
        var firstStage: FirstStage?
        /// Height, width and channels of the images.
        var transform: ImageTransform
        var step: Int?
        var weights: String
        /// Hash of the weights and everything else that the samples depend on.
        var identity: String
        /// Output folder, and its parent, to which the paths in the result are relative.
        var output: String
        var base: String
    }

    /// Height and width of the given samples: the requested size or their common one; nil if a model
    /// determines it. Collective.
    private func sizeOfSamples(_ sources: SharedSources, _ communicator: Communicator) throws -> Int? {
        guard let samples = request.samples else { return nil }
        if let size = request.size { return size }
        let source = try communicator.collectively("opening \(samples)") {
            try sources.open(samples, size: EvaluationRequest.usualSide)
        }
        let size = try source.commonSize(omitting: Self.grid, option: "--samples", on: communicator)
        guard request.model == nil else { return nil }
        return size.map { min($0.width, $0.height) }
    }

    private func open(
        _ sampleSize: Int?, _ communicator: Communicator, _ note: (String) -> Void
    ) throws -> Opened {
        guard let model = request.model else {
            guard let samples = request.samples, let output = request.output else {
                throw RunError("without --model, expected --samples and --output")
            }
            guard let sampleSize else {
                throw RunError(
                    "\(samples): no image can be decoded; check the first with an image viewer",
                    exitStatus: ExitStatus.refused)
            }
            let stage = try request.firstStage.map {
                try FirstStage(folder: .verifiedAutoencoder($0))
            }
            return Opened(
                firstStage: stage,
                transform: ImageTransform(
                    size: sampleSize, channels: request.channels ?? referenceChannels ?? 3),
                step: nil, weights: "samples",
                identity: "", output: output, base: output)
        }
        let folder = try PipelineFolder.open(
            model, weights: request.weights, firstStage: request.firstStage, note: note)
        let run = Self.run(of: folder.unet.path)
        guard let output = request.output ?? run.map({ "\($0)/evaluation" }) else {
            throw RunError("\(model): is neither a run nor a checkpoint of a run; specify --output")
        }
        let isGiven = request.firstStage != nil
        let firstStage = try folder.openFirstStage(dtype: request.dtype, isGiven: isGiven)
        guard let size = folder.unetConfig.sampleSize, size.height == size.width else {
            throw RunError(
                "\(model): config.json has no square sample_size, which evaluation requires",
                exitStatus: ExitStatus.refused)
        }
        let side = sampleSize ?? size.height * (firstStage?.downsamplingFactor ?? 1)
        let ownChannels = firstStage?.imageChannels ?? folder.unetConfig.inChannels
        let channels = request.channels ?? (Image.channelCounts.contains(ownChannels) ? ownChannels : 3)
        var opened = Opened(
            pictures: nil, firstStage: firstStage, transform: ImageTransform(size: side, channels: channels),
            step: folder.step, weights: folder.weightsName, identity: "", output: output,
            base: request.output ?? (output as NSString).deletingLastPathComponent)
        guard request.samples == nil else { return opened }
        let unet = try folder.loadUNet()
        guard unet.config.inChannels == unet.config.outChannels else {
            throw RunError(
                "\(model): predicts \(unet.config.outChannels) channels from \(unet.config.inChannels), "
                    + "expected equal numbers",
                exitStatus: ExitStatus.refused)
        }
        if folder.scheduler == nil {
            note("\(model) has no scheduler configuration; sampling uses DDIMScheduler's defaults")
        }
        let scheduler = folder.scheduler ?? SchedulerConfig()
        opened.identity = contentHash([
            unet.store.contentHash, try unet.config.jsonText(), try scheduler.jsonText(),
            firstStage?.weightsHash ?? "", firstStage.map { "\($0.scalingFactor) \($0.shiftFactor)" } ?? "",
            request.dtype.rawValue,
        ])
        opened.pictures = SamplePictures(
            SampleGenerator(
                Denoiser(unet, dtype: request.dtype), scheduler: scheduler, height: size.height,
                width: size.width),
            firstStage: firstStage, communicator: communicator)
        guard opened.pictures?.areVisible == true else {
            throw RunError(
                "\(model): samples have \(unet.config.inChannels) channels, and there is no first stage to decode "
                    + "them; specify --first-stage", exitStatus: ExitStatus.refused)
        }
        return opened
    }

    /// The channels of a reference that `prepare` wrote.
    private var referenceChannels: Int? {
        PreparedManifest.isIn(request.reference)
            ? try? PreparedManifest.read(folder: request.reference).job.channels : nil
    }

    /// The run folder RUN for the path RUN/checkpoints/step-N/WEIGHTS, the same in its snapshots, or
    /// RUN/model/unet; nil for any other path.
    private static func run(of unet: String) -> String? {
        let path = URL(fileURLWithPath: unet).standardizedFileURL
        let folder = path.deletingLastPathComponent()
        let above = folder.deletingLastPathComponent()
        let isCheckpoint = ["checkpoints", "ema-snapshots"].contains(above.lastPathComponent)
        let run = isCheckpoint ? above.deletingLastPathComponent() : above
        let isRun = FileManager.default.fileExists(atPath: run.appendingPathComponent("config.yaml").path)
        let isItsOwn = isCheckpoint || folder.lastPathComponent == "model"
        return isRun && isItsOwn ? run.path : nil
    }

    private func makeEvaluation(
        _ opened: Opened, _ sources: SharedSources, _ communicator: Communicator,
        _ note: (String) -> Void
    ) throws -> Evaluation {
        let samples: any EvaluationImages
        if let path = request.samples {
            samples = PictureSet(
                try sources.open(path, size: opened.transform.size), name: path, opened.transform,
                limit: request.count, omitted: Self.grid)
        } else if let pictures = opened.pictures {
            samples = GeneratedImages(
                name: request.model ?? "", pictures: pictures, settings: request.settings,
                count: request.count ?? EvaluationRequest.usualCount, identity: opened.identity)
        } else {
            preconditionFailure("a model without samples is opened with its pictures")
        }
        let featureStage = try request.featureStage.map {
            try FirstStage(folder: .verifiedAutoencoder($0))
        }
        let extractor = try FeatureExtractor(
            request.features, inception: request.inception, firstStage: featureStage ?? opened.firstStage,
            side: opened.transform.size)
        let reference = try EvaluationReference(
            request.reference, extractor, channels: opened.transform.channels, firstStage: opened.firstStage,
            sources: sources, note: note)
        for (what, images) in [("--samples", samples.count), ("--reference", reference.count)]
        where images < EvaluationConfiguration.minimumCount && !(images == 0 && what == "--reference") {
            throw RunError(
                "\(what): \(images) images, expected at least \(EvaluationConfiguration.minimumCount)")
        }
        return Evaluation(
            samples: samples, reference: reference, extractor: extractor,
            cache: request.cache ?? opened.output, work: opened.output, seed: request.settings.seed,
            communicator: communicator)
    }
}

extension FeatureExtractor {
    /// The requested features, or the best available: Inception's if its weights are given, else the first
    /// stage's latents, else pixels.
    package convenience init(
        _ asked: FeatureKind?, inception: String?, firstStage: FirstStage?, side: Int
    ) throws {
        switch asked ?? (inception != nil ? .inception : firstStage != nil ? .vae : .pixel) {
        case .inception:
            guard let inception else {
                throw RunError(
                    "features inception: requires the weights of FID's network (--inception, or evaluation.inception); "
                        + "docs/evaluation.md describes how to convert them")
            }
            try self.init(inception: inception, side: side)
        case .vae:
            guard let firstStage else {
                throw RunError(
                    "features vae: the model has no first stage; specify --feature-stage, or use pixel or inception"
                )
            }
            try self.init(firstStage, side: side)
        case .pixel: self.init(pixelsOf: side)
        }
    }
}

extension EvaluationReference {
    /// Opens images, or an .npz file of statistics.
    ///
    /// - Parameter channels: those of the samples, to which the images are converted.
    package init(
        _ path: String, _ extractor: FeatureExtractor, channels: Int, firstStage: FirstStage?,
        sources: SharedSources, note: (String) -> Void
    ) throws {
        guard FeatureStatistics.areIn(path) else {
            self = .images(
                try openReferenceImages(
                    path, ImageTransform(size: extractor.side, channels: channels), firstStage: firstStage,
                    sources: sources, note: note))
            return
        }
        let statistics = try FeatureStatistics(npz: path)
        guard extractor.kind == .inception, statistics.dimension == extractor.dimension else {
            throw StatisticsError(
                path,
                "statistics have \(statistics.dimension) dimensions, but \(extractor.kind.rawValue) features have "
                    + "\(extractor.dimension); .npz files with mu and sigma are for --features inception")
        }
        var hash = SourceFingerprint()
        for value in statistics.mean + statistics.covariance {
            hash.add(Int(bitPattern: UInt(value.bitPattern)))
        }
        self = .statistics(statistics, path: path, fingerprint: hash.text)
    }
}

extension EvaluationResult {
    /// The result of evaluating one step.
    package init(
        _ outcome: Evaluation.Outcome, of evaluation: Evaluation, step: Int?, weights: String,
        sampler: SamplingSettings?
    ) {
        self.init(
            step: step, weights: weights, features: evaluation.extractor.kind,
            count: evaluation.samples.count,
            reference: (
                evaluation.reference.name, evaluation.reference.count, evaluation.reference.fingerprint
            ), sampler: sampler, metrics: outcome.metrics, pictures: [], seconds: outcome.seconds)
        classes = outcome.classes
        images = [("nearest", outcome.nearest), ("samples", outcome.grid)]
    }

    /// Writes the pictures and the result. For one rank.
    ///
    /// - Parameter base: the folder to which the pictures' paths are relative: `folder` or its parent.
    package func write(to folder: String, in base: String) throws -> (result: EvaluationResult, path: String)
    {
        var result = self
        let stem = Self.stem(step: step, features: features)
        let prefix = folder == base ? "" : (folder as NSString).lastPathComponent + "/"
        try makeOutputFolder(folder)
        for (name, image) in images {
            guard let image else { continue }
            let file = "\(stem)-\(name).png"
            try image.write(to: "\(folder)/\(file)")
            result.pictures.append((name, prefix + file))
        }
        let path = "\(folder)/\(stem).json"
        try AtomicFile.write(Array((try result.json.text(pretty: true) + "\n").utf8), to: path)
        return (result, path)
    }
}
