import Communication
import FileFormats
import Foundation
import Imaging
import LDMModel
import Support
import TensorCore

/// The output format of samples.
package enum SampleFormat: String, Sendable, CaseIterable {
    /// One PNG per sample, with its generation parameters in text chunks.
    case png
    /// All samples in one PNG.
    case grid
    /// All samples in a NumPy archive, for evaluators; see `NPZFile`.
    case npz
}

/// `disttrain sample`: generates images with a trained model, on all ranks.
package struct SampleRun {
    let model: String
    /// The weights to use from a checkpoint, "unet", "ema-0.9999" or "sigma-rel-0.08"; nil: the slowest
    /// average.
    let weights: String?
    /// The autoencoder's folder, which replaces the one that the model refers to.
    let firstStage: String?
    /// Number of samples; nil: the number of noise samples or seeds that are given, or 64.
    let count: Int?
    let settings: SamplingSettings
    package let dtype: DType
    let output: String
    let formats: Set<SampleFormat>
    /// File with a tensor "noise", "init_noise" or "latents" [N, C, H, W], or with a single tensor.
    let initialNoise: String?
    /// Output file for the U-Net's final samples, as `latents` [N, C, H, W]: scaled latents, or pixels in
    /// pixel space.
    let latents: String?
    /// Images that the samples start from; nil: noise.
    let edit: ImageEdit?

    package init(
        model: String, weights: String?, firstStage: String?, count: Int?, settings: SamplingSettings,
        dtype: DType, output: String, formats: Set<SampleFormat> = [.png, .grid], initialNoise: String? = nil,
        latents: String? = nil, edit: ImageEdit? = nil
    ) {
        (self.model, self.weights, self.firstStage) = (model, weights, firstStage)
        (self.count, self.settings, self.dtype, self.output) = (count, settings, dtype, output)
        (self.formats, self.initialNoise, self.latents) = (formats, initialNoise, latents)
        self.edit = edit
    }

    package func run(_ communicator: Communicator) throws {
        let opened = try open(communicator)
        let initial = try communicator.collectively("reading the initial noise") {
            try initialNoise.map { try readNoise($0, opened.unet.config) }
        }
        let pictures =
            latents == nil
            ? try opened.visiblePictures(size: initial?.size, communicator)
            : try opened.pictures(size: initial?.size, communicator)
        let images = try edit.map { try openImages($0, pictures, communicator) }
        let classes = try opened.unet.config.select(settings.classes)
        let total =
            initial?.count ?? settings.seeds?.count ?? count ?? images?.source.count
            ?? Self.usualCount(classes)
        let generator = pictures.generator
        let evaluations =
            try edit.map { try generator.evaluations(settings, $0.settings, hasMask: $0.mask != nil) }
            ?? generator.evaluations(settings)
        let range = pictures.share(of: total)
        let given = try communicator.collectively("reading \(edit?.images ?? "")") {
            try images?.given(range, pictures)
        }
        let share = try withProgress(range.count * evaluations, communicator) {
            try pictures.draw(total, settings, initial: initial?.values, given: given, progress: $0)
        }
        try write(share, pictures, total, opened, communicator)
    }

    /// 64, or the nearest smaller multiple of the number of classes.
    private static func usualCount(_ classes: ClassSelection?) -> Int {
        guard let classes = classes?.classes.count, classes < 64 else { return 64 }
        return 64 / classes * classes
    }

    /// Opens the model and creates the output folder.
    ///
    /// - Parameter isOneClass: require that the user selects one class of a class-conditional model.
    func open(_ communicator: Communicator, isOneClass: Bool = false) throws -> SamplingModel {
        try communicator.collectively("opening \(model)") {
            let opened = try SamplingModel(
                model, weights: weights, firstStage: firstStage, dtype: dtype
            ) { if communicator.isRoot { printLine("Note: \($0)") } }
            if let selection = try opened.unet.config.select(settings.classes), isOneClass,
                selection.classes.count > 1
            {
                throw RunError(
                    "\(model): is class-conditional; specify one class, as --class \(selection.names[0])")
            }
            if communicator.isRoot { try makeOutputFolder(output) }
            if opened.folder.scheduler == nil, communicator.isRoot {
                printLine(
                    "Note: \(model) has no scheduler configuration; sampling uses DDIMScheduler's defaults")
            }
            return opened
        }
    }

    /// Shows a progress line on rank 0 for `total` denoising steps.
    func withProgress<Result>(
        _ total: Int, _ communicator: Communicator,
        _ body: (_ progress: @escaping (Int) throws -> Void) throws -> Result
    ) rethrows -> Result {
        let progress =
            communicator.isRoot ? CountProgress("sample", unit: "denoising steps", total: total) : nil
        var done = 0
        let result = try body { batch in
            done += batch
            progress?.update(done)
        }
        progress?.finish(done)
        return result
    }

    private func write(
        _ share: SamplePictures.Share, _ pictures: SamplePictures, _ total: Int, _ opened: SamplingModel,
        _ communicator: Communicator
    ) throws {
        let generator = pictures.generator
        let images = try pictures.gather(share, count: total)
        let everyone = latents == nil ? nil : try communicator.gatherFloats(share.latents)
        try communicator.collectively("writing \(output)") {
            guard let images else { return }
            var written: [String] = []
            if !images.isEmpty { written = try write(images, opened) }
            if let latents, let everyone {
                let (h, w, c) = (generator.height, generator.width, generator.channels)
                try SafetensorsWriter.write(
                    [
                        (
                            "latents", [total, c, h, w],
                            Layout.nchw(everyone, batch: total, height: h, width: w, channels: c)
                        )
                    ], to: latents)
            }
            printLine(
                images.isEmpty
                    ? "Wrote \(total) latents to \(latents ?? "")"
                    : "Wrote \(images.count) samples (\(written.joined(separator: ", "))) to \(output)")
        }
    }

    /// - Returns: a description of the files written, for display.
    private func write(_ images: [Image], _ opened: SamplingModel) throws -> [String] {
        var written: [String] = []
        let classes = try opened.unet.config.select(settings.classes)
        if formats.contains(.png) {
            for (index, image) in images.enumerated() {
                let key = settings.key(of: index)
                let name =
                    settings.seeds == nil
                    ? "sample_\(padded(index, digits: 5))" : "seed_\(padded(key.seed, digits: 5))"
                let condition = classes.map { [("class", $0.name(of: index))] } ?? []
                let noise =
                    initialNoise.map { [("init_noise", $0), ("index", String(index))] }
                    ?? [("seed", String(key.seed)), ("index", String(key.sample))]
                try image.write(to: "\(output)/\(name).png", text: noise + condition + parameters(opened))
            }
            written.append("PNG files")
        }
        if formats.contains(.grid) {
            let seeds = settings.seeds.map { "\($0.first ?? 0) and \($0.count - 1) more" }
            try ImageGrid.render(samples: images, classes).write(
                to: "\(output)/grid.png",
                text: [("seed", seeds ?? String(settings.seed))] + parameters(opened))
            written.append("grid.png")
        }
        if formats.contains(.npz) {
            let shape = [images.count, images[0].height, images[0].width, images[0].channels]
            let name = "samples_\(shape.map(String.init).joined(separator: "x")).npz"
            try NPZFile.write(images, to: "\(output)/\(name)")
            written.append(name)
        }
        return written
    }

    /// The generation parameters other than the noise, for the text chunks of an image.
    func parameters(_ opened: SamplingModel) -> [(key: String, value: String)] {
        var text: [(key: String, value: String)] = [
            ("model", model), ("weights", opened.folder.weightsName),
        ]
        if let step = opened.folder.step { text.append(("step", String(step))) }
        let settings = settings.resolved(for: opened.scheduler)
        if edit?.mask != nil {
            let eta = self.settings.inpaintingEta
            text += [("method", "repaint"), ("steps", String(settings.steps)), ("eta", String(eta))]
        } else {
            text += [("method", settings.method?.rawValue ?? ""), ("steps", String(settings.steps))]
            if settings.method == .ddim { text.append(("eta", String(settings.eta))) }
        }
        if settings.classes.guidanceScale != 1 {
            text.append(("guidance_scale", String(settings.classes.guidanceScale)))
        }
        let hasLevels = edit?.mask == nil && settings.method?.hasKarrasSigmas == true
        if hasLevels, settings.karras ?? opened.scheduler.useKarrasSigmas { text.append(("karras", "true")) }
        if let edit {
            text.append(("from_image", edit.images))
            if let mask = edit.mask { text.append(("mask", mask)) }
            if let strength = edit.settings.strength { text.append(("strength", String(strength))) }
        }
        let spacing = settings.spacing ?? opened.scheduler.timestepSpacing
        return text + [("spacing", spacing.rawValue), ("program", "disttrain \(Program.version)")]
    }

    /// The first `count` samples of the file, or all of them.
    private func readNoise(
        _ path: String, _ config: UNet2DConfig
    ) throws -> (count: Int, size: SpatialSize, values: [Float]) {
        let file = try SampleFile(
            path, names: ["noise", "init_noise", "latents"], channels: config.inChannels,
            multipleOf: config.downsamplingFactor, for: "the U-Net")
        let wanted = count ?? file.count
        guard wanted <= file.count else {
            throw RunError("--count \(wanted): \(path) has noise for only \(file.count) samples")
        }
        return (
            wanted, SpatialSize(height: file.height, width: file.width), try file.samples(0..<wanted)
        )
    }
}

extension Communicator {
    /// The values of all ranks on rank 0, in rank order; nil on other ranks.
    func gatherFloats(_ values: [Float]) throws -> [Float]? {
        try gather(values.withUnsafeBytes { [UInt8]($0) }, root: 0)?.flatMap { bytes in
            bytes.withUnsafeBytes { raw in raw.bindMemory(to: Float.self).map { $0 } }
        }
    }
}
