import Communication
import Foundation
import Imaging
import Support

// `sample --progress` and `sample --interpolate`: illustrations of a model's sampling.

extension SampleRun {
    /// Writes `progress.png`, which shows the samples during denoising; see `SamplePictures.denoisingStrip`.
    package func writeProgress(moments: Int, _ communicator: any Communicator) throws {
        let opened = try open(communicator)
        let pictures = try opened.visiblePictures(communicator)
        let total = settings.seeds?.count ?? count ?? 4
        let strip = try withProgress(pictures.share(of: total).count * settings.steps, communicator) {
            try pictures.denoisingStrip(total, moments: moments, settings, progress: $0)
        }
        try communicator.collectively("writing \(output)") {
            guard let strip else { return }
            let seed = settings.seeds.map { $0.map(String.init).joined(separator: ",") }
            try strip.write(
                to: "\(output)/progress.png",
                text: [("seed", seed ?? String(settings.seed)), ("rows", "x_t, x_0")] + parameters(opened))
            printLine("Wrote \(total) samples as they come out of noise to \(output)/progress.png")
        }
    }

    /// Writes `interpolation.png` and its individual images; see `SamplePictures.interpolation`.
    package func writeInterpolation(
        _ pairs: [(UInt64, UInt64)], frames: Int, _ communicator: any Communicator
    ) throws {
        let opened = try open(communicator)
        let pictures = try opened.visiblePictures(communicator)
        let steps = pictures.share(of: pairs.count * frames).count * settings.steps
        let images = try withProgress(steps, communicator) {
            try pictures.interpolation(pairs, frames: frames, settings, progress: $0)
        }
        try communicator.collectively("writing \(output)") {
            guard let images else { return }
            let names = pairs.map { "\($0.0):\($0.1)" }
            for (index, image) in images.enumerated() {
                let (row, frame) = (index / frames, index % frames)
                try image.write(
                    to: "\(output)/interpolation_\(fiveDigits(row))_\(fiveDigits(frame)).png",
                    text: [
                        ("seeds", names[row]), ("weight", String(Double(frame) / Double(frames - 1))),
                    ] + parameters(opened))
            }
            try ImageGrid(columns: frames).render(images).write(
                to: "\(output)/interpolation.png",
                text: [("seeds", names.joined(separator: " "))] + parameters(opened))
            printLine(
                "Wrote \(pairs.count) interpolations of \(frames) pictures, and interpolation.png, to \(output)"
            )
        }
    }
}
