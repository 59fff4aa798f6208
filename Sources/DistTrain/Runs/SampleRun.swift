import Foundation
import LDMModel
import TensorCore

/// `disttrain sample`: pictures from a trained model, on all ranks.
public struct SampleRun {
    let model: String
    /// Weights of a checkpoint in place of the slowest average, "unet" or "ema-0.9999".
    let weights: String?
    /// The autoencoder's folder in place of the one that the model names.
    let firstStage: String?
    /// nil: as many as there is initial noise for, or 64.
    let count: Int?
    let settings: SamplingSettings
    let dtype: DType
    let output: String
    /// File with a tensor "noise", "init_noise" or "latents" [N, C, H, W], or with one tensor alone.
    let initialNoise: String?
    /// File to write what the U-Net ended with to, as `latents` [N, C, H, W]: scaled latents, or pixels in pixel space.
    let latents: String?

    public init(
        model: String, weights: String?, firstStage: String?, count: Int?, settings: SamplingSettings,
        dtype: DType, output: String, initialNoise: String?, latents: String?
    ) {
        self.model = model
        self.weights = weights
        self.firstStage = firstStage
        self.count = count
        self.settings = settings
        self.dtype = dtype
        self.output = output
        self.initialNoise = initialNoise
        self.latents = latents
    }

    public func run(_ communicator: any Communicator) throws {
        let (unet, scheduler, firstStage) = try communicator.collectively("opening \(model)") {
            if communicator.isRoot { try makeOutputFolder(output) }
            let folder = try PipelineFolder.read(model, weights: weights, firstStage: self.firstStage)
            if folder.scheduler == nil, communicator.isRoot {
                printLine("Note: \(model) names no scheduler; sampling as DDIMScheduler's defaults say")
            }
            return (
                try open(folder.unet), folder.scheduler ?? SchedulerConfig(),
                try folder.openFirstStage(dtype: dtype, isGiven: self.firstStage != nil)
            )
        }
        let initial = try communicator.collectively("reading the initial noise") {
            try initialNoise.map { try readNoise($0, unet.config) }
        }
        guard let size = initial?.size ?? unet.config.sampleSize else {
            throw RunError(
                "\(model): config.json has no sample_size; give --init-noise", exitStatus: ExitStatus.refused)
        }
        let total = initial?.count ?? count ?? 64
        let generator = SampleGenerator(
            Denoiser(unet, dtype: dtype), scheduler: scheduler, height: size.height, width: size.width)
        let pictures = SamplePictures(generator, firstStage: firstStage, communicator: communicator)
        guard pictures.areVisible || latents != nil else {
            throw RunError(
                "\(model): samples of \(unet.config.inChannels) channels and no first stage, which are no pictures; "
                    + "give --first-stage, or --dump-latents for the latents alone",
                exitStatus: ExitStatus.refused)
        }
        let steps =
            settings.method == .ddpm && settings.steps > scheduler.numTrainTimesteps
            ? scheduler.numTrainTimesteps : settings.steps
        let progress =
            communicator.isRoot
            ? CountProgress("sample", unit: "denoising steps", total: pictures.share(of: total).count * steps)
            : nil
        var done = 0
        let share = try pictures.draw(total, settings, initial: initial?.values) { batch in
            done += batch
            progress?.update(done)
        }
        progress?.finish(done)
        try write(share, pictures, total, communicator)
    }

    private func write(
        _ share: SamplePictures.Share, _ pictures: SamplePictures, _ total: Int,
        _ communicator: any Communicator
    ) throws {
        let generator = pictures.generator
        let images = try pictures.gather(share, count: total)
        let bytes = share.latents.withUnsafeBytes { [UInt8]($0) }
        let everyone = latents == nil ? nil : try communicator.gather(bytes, root: 0)
        try communicator.collectively("writing \(output)") {
            guard let images else { return }
            for (index, image) in images.enumerated() {
                try image.write(
                    to: "\(output)/sample_\(fiveDigits(index)).png",
                    text: ["model": model, "seed": String(settings.seed), "index": String(index)])
            }
            if !images.isEmpty {
                try ImageGrid.square(of: images.count).render(images).write(
                    to: "\(output)/grid.png",
                    text: [
                        "model": model, "seed": String(settings.seed), "method": settings.method.rawValue,
                        "steps": String(settings.steps), "eta": String(settings.eta),
                    ])
            }
            if let latents, let everyone {
                let values = everyone.flatMap { bytes in
                    bytes.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
                }
                let (h, w, c) = (generator.height, generator.width, generator.channels)
                try SafetensorsWriter.write(
                    [
                        (
                            "latents", [total, c, h, w],
                            Layout.nchw(values, batch: total, height: h, width: w, channels: c)
                        )
                    ], to: latents)
            }
            printLine(
                images.isEmpty
                    ? "Wrote \(total) latents to \(latents ?? "")"
                    : "Wrote \(images.count) samples and grid.png to \(output)")
        }
    }

    private func open(_ folder: ModelFolder) throws -> UNet2DModel {
        let unet = try folder.loadUNet()
        let (input, output) = (unet.config.inChannels, unet.config.outChannels)
        guard input == output else {
            throw RunError(
                "\(folder.path): predicts \(output) channels of \(input), expected as many (no learned variances)",
                exitStatus: ExitStatus.refused)
        }
        return unet
    }

    /// The first `count` samples of the file, or all.
    private func readNoise(
        _ path: String, _ config: UNet2DConfig
    ) throws -> (count: Int, size: SpatialSize, values: [Float]) {
        let file = try SampleFile(
            path, names: ["noise", "init_noise", "latents"], channels: config.inChannels,
            multipleOf: config.downsamplingFactor, for: "the U-Net")
        let wanted = count ?? file.count
        guard wanted <= file.count else {
            throw RunError("--count \(wanted): \(path) has noise for \(file.count) samples alone")
        }
        return (
            wanted, SpatialSize(height: file.height, width: file.width), try file.samples(0..<wanted)
        )
    }
}
