import Foundation
import LDMModel
import TensorCore

/// `disttrain sample`: pictures from a trained model, on all ranks.
public struct SampleRun {
    let model: String
    let count: Int
    let settings: SamplingSettings
    let dtype: DType
    let output: String
    /// File with the tensor "noise" [N, C, H, W].
    let initialNoise: String?
    /// File to write the final latents to.
    let latents: String?

    public init(
        model: String, count: Int, settings: SamplingSettings, dtype: DType, output: String,
        initialNoise: String?, latents: String?
    ) {
        self.model = model
        self.count = count
        self.settings = settings
        self.dtype = dtype
        self.output = output
        self.initialNoise = initialNoise
        self.latents = latents
    }

    public func run(_ communicator: any Communicator) throws {
        let (unet, scheduler, firstStage) = try communicator.collectively("opening \(model)") {
            if communicator.isRoot { try makeFolder(output) }
            let folder = try PipelineFolder.read(model)
            return (
                try folder.unet.loadUNet(), folder.scheduler ?? SchedulerConfig(),
                try folder.firstStage.map { try FirstStage(folder: $0, dtype: dtype) }
            )
        }
        let initial = try communicator.collectively("reading the initial noise") {
            try initialNoise.map { try readNoise($0, channels: unet.config.inChannels) }
        }
        guard let size = initial?.size ?? unet.config.sampleSize else {
            throw RunError(
                "\(model): config.json has no sample_size; give --init-noise", exitStatus: ExitStatus.refused)
        }
        let total = initial?.count ?? count
        let generator = SampleGenerator(
            Denoiser(unet, dtype: dtype), scheduler: scheduler, height: size.height, width: size.width)
        let pictures = SamplePictures(generator, firstStage: firstStage, communicator: communicator)
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
                    to: "\(output)/sample_\(Self.digits(index)).png",
                    text: ["model": model, "seed": String(settings.seed), "index": String(index)])
            }
            try ImageGrid.square(of: images.count).render(images).write(
                to: "\(output)/grid.png",
                text: [
                    "model": model, "seed": String(settings.seed), "method": settings.method.rawValue,
                    "steps": String(settings.steps), "eta": String(settings.eta),
                ])
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
            printLine("Wrote \(images.count) samples and grid.png to \(output)")
        }
    }

    private func readNoise(
        _ path: String, channels: Int
    ) throws -> (count: Int, size: SpatialSize, values: [Float]) {
        let file = try SafetensorsFile(path: path)
        let shape = try file.info(of: "noise").shape
        guard shape.count == 4, shape[1] == channels else {
            throw RunError(
                "\(path): noise is \(shape), expected [N, \(channels), H, W]", exitStatus: ExitStatus.refused)
        }
        let values = Layout.nhwc(
            try file.floats(of: "noise"), batch: shape[0], height: shape[2], width: shape[3],
            channels: channels)
        return (shape[0], SpatialSize(height: shape[2], width: shape[3]), values)
    }

    private func makeFolder(_ path: String) throws {
        do {
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        } catch {
            throw RunError(
                "\(path): cannot be created (\(error.localizedDescription)); choose another --output")
        }
    }

    private static func digits(_ index: Int) -> String {
        let text = String(index)
        return String(repeating: "0", count: max(0, 5 - text.count)) + text
    }
}
