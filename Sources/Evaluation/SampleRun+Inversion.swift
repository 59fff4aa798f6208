import Communication
import Datasets
import FileFormats
import Foundation
import Imaging
import LDMModel
import Support
import TensorCore

/// The error of images that are inverted to noise and generated again.
struct RoundTripError: Sendable, Equatable {
    /// Root mean square difference of pixels in [-1, 1].
    let pixels: Double
    /// ‖z' - z‖ / ‖z‖ of the U-Net's samples (latents or pixels).
    let latents: Double

    /// Peak signal-to-noise ratio in dB, for a range of 2; nil if there is no difference.
    var psnr: Double? { pixels > 0 ? 20 * log10(2 / pixels) : nil }
}

// `sample --invert`: computes the noise of given images and generates images from it.

extension SampleRun {
    /// Inverts images by DDIM, generates images from the noise again, and reports the error of the round
    /// trip.
    ///
    /// Writes `noise.safetensors` (input for `--init-noise`), `inversion.png` (rows of: the image; with a
    /// first stage, its reconstruction by that stage alone; the image generated from the noise) and
    /// `inversion.json` with the errors. The predicted x₀ is not clipped in either direction, since a clipped
    /// step cannot be inverted.
    ///
    /// - Parameter source: a folder or archive of images; see `openImageSource`.
    package func writeInversion(of source: String, _ communicator: Communicator) throws {
        let opened = try open(communicator, isOneClass: true)
        let pictures = try opened.visiblePictures(communicator)
        let trip = RoundTrip(pictures, settings)
        let sources = try SharedSources([source], skipBad: false, readsContent: false, on: communicator)
        let images = try communicator.collectively("opening \(source)") {
            let images = try sources.open(source, size: trip.side)
            guard images.count > 0 else { throw RunError("\(source): no pictures, expected at least one") }
            return images
        }
        let total = min(count ?? 64, images.count)
        let range = pictures.share(of: total)
        let originals = try communicator.collectively("reading the pictures of \(source)") {
            let transform = ImageTransform(size: trip.side, channels: pictures.channels)
            return try range.map { transform.apply(try images.image(at: $0)) }
        }
        let result = try withProgress(2 * range.count * settings.steps, communicator) {
            try trip(originals, progress: $0)
        }
        let rows = try pictures.gather(result.rows)
        let noise = try communicator.gatherFloats(result.noise)
        let errors = try communicator.allGather(result.errors.flatMap { [$0.pixels, $0.latents] }).flatMap {
            $0
        }
        try communicator.collectively("writing \(output)") {
            guard let rows, let noise else { return }
            try write(
                rows, noise, errors, names: (0..<total).map { images.itemName(at: $0) }, pictures, opened)
        }
    }

    private func write(
        _ rows: [Image], _ noise: [Float], _ errors: [Double], names: [String], _ pictures: SamplePictures,
        _ opened: SamplingModel
    ) throws {
        let total = names.count
        let generator = pictures.generator
        let (h, w, c) = (generator.height, generator.width, generator.channels)
        try SafetensorsWriter.write(
            [
                (
                    "noise", [total, c, h, w],
                    Layout.nchw(noise, batch: total, height: h, width: w, channels: c)
                )
            ],
            to: "\(output)/noise.safetensors")
        try ImageGrid(columns: rows.count / total).render(rows).write(
            to: "\(output)/inversion.png", text: parameters(opened))
        let each = (0..<total).map { RoundTripError(pixels: errors[2 * $0], latents: errors[2 * $0 + 1]) }
        let mean = RoundTripError(
            pixels: each.map(\.pixels).reduce(0, +) / Double(total),
            latents: each.map(\.latents).reduce(0, +) / Double(total))
        let json: JSONValue = [
            "format_version": 1, "model": .string(model), "steps": .integer(settings.steps),
            "count": .integer(total), "mean": mean.json,
            "images": .array(
                zip(names, each).map { name, error in
                    var object = error.json.objectValue ?? JSONObject()
                    object["name"] = .string(name)
                    return .object(object)
                }),
        ]
        try AtomicFile.write(
            Array((try json.text(pretty: true) + "\n").utf8), to: "\(output)/inversion.json")
        let psnr = mean.psnr.map { String(format: ", PSNR %.1f dB", $0) } ?? ""
        printLine(
            "Inverted \(total) pictures in \(settings.steps) steps and sampled them back: RMS error of pixels in "
                + String(format: "[-1, 1] %.4f", mean.pixels) + psnr
                + String(format: ", relative error of latents %.2f %%", 100 * mean.latents))
        printLine("Wrote noise.safetensors, inversion.png and inversion.json to \(output)")
    }
}

extension RoundTripError {
    fileprivate var json: JSONValue {
        [
            "pixel_rms": .finite(pixels), "psnr_db": psnr.map { .finite($0) } ?? .null,
            "latent_relative_error": .finite(latents),
        ]
    }
}

/// The round trip from images to noise and back, on one rank.
private struct RoundTrip {
    let pictures: SamplePictures
    let settings: SamplingSettings
    /// Height and width of the images.
    let side: Int

    init(_ pictures: SamplePictures, _ settings: SamplingSettings) {
        self.pictures = pictures
        var settings = settings
        (settings.method, settings.clips) = (.ddim, false)
        self.settings = settings
        side = pictures.generator.height * (pictures.firstStage?.downsamplingFactor ?? 1)
    }

    /// - Returns: for each image the row to display, its noise [H, W, C], and the error of the round trip.
    func callAsFunction(
        _ originals: [Image], progress: @escaping (Int) throws -> Void
    ) throws -> (rows: [Image], noise: [Float], errors: [RoundTripError]) {
        guard !originals.isEmpty else { return ([], [], []) }
        let generator = pictures.generator
        let latents = try pictures.encode(originals)
        let noise = try generator.invert(latents, settings, progress: progress)
        let again = try generator.generate(0..<originals.count, settings, initial: noise, progress: progress)
        let size = generator.sampleSize
        // The best result that sampling could achieve.
        let expected = try pictures.decode(latents, count: originals.count)
        let found = try pictures.decode(again, count: originals.count)
        let errors = originals.indices.map { index in
            let part = index * size..<(index + 1) * size
            return RoundTripError(
                pixels: rms(zip(expected[index].floats(), found[index].floats())),
                latents: rms(zip(latents[part], again[part])) / rms(latents[part].lazy.map { ($0, 0) }))
        }
        let rows = originals.indices.flatMap { index in
            [originals[index]] + (pictures.firstStage == nil ? [] : [expected[index]]) + [found[index]]
        }
        return (rows, noise, errors)
    }

    private func rms(_ pairs: some Sequence<(Float, Float)>) -> Double {
        var (sum, count) = (0.0, 0)
        for (a, b) in pairs {
            let difference = Double(a) - Double(b)
            sum += difference * difference
            count += 1
        }
        return (sum / Double(max(1, count))).squareRoot()
    }
}
