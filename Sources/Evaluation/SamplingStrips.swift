import Communication
import Foundation
import Imaging
import LDMModel
import Support

// Strips of images that illustrate a model's sampling. All ranks take part; rank 0 receives the result.

extension SamplePictures {
    /// The denoising of samples: two rows per sample, x_t above the model's estimate of x₀. The last column
    /// is the finished sample.
    ///
    /// - Parameters:
    ///   - count: number of samples.
    ///   - moments: number of columns before the last; at most the number of steps.
    /// - Returns: the image on rank 0; nil on other ranks.
    package func denoisingStrip(
        _ count: Int, moments: Int, _ settings: SamplingSettings, progress: ((Int) throws -> Void)? = nil
    ) throws -> Image? {
        let size = generator.sampleSize
        let evaluations = try generator.evaluations(settings)
        let columns = max(1, min(moments, evaluations))
        // The selection includes the first and the last step.
        let indices = (0..<columns).map { column in
            columns == 1 ? 0 : column * (evaluations - 1) / (columns - 1)
        }
        let range = share(of: count)
        // For each of this rank's samples x_t, then x₀, column by column: [sample, 2, columns + 1, H, W, C].
        var latents = [Float](repeating: 0, count: range.count * 2 * (columns + 1) * size)
        func place(_ sample: Int, _ row: Int, _ column: Int) -> Range<Int> {
            let start = (((sample - range.lowerBound) * 2 + row) * (columns + 1) + column) * size
            return start..<start + size
        }
        let share = try draw(
            count, settings,
            observe: { moment in
                guard let column = indices.firstIndex(of: moment.index) else { return }
                let clean = moment.clean
                for (b, sample) in moment.samples.enumerated() {
                    let part = b * size..<(b + 1) * size
                    latents.replaceSubrange(place(sample, 0, column), with: moment.noisy[part])
                    latents.replaceSubrange(place(sample, 1, column), with: clean[part])
                }
            }, progress: progress)
        for (b, sample) in range.enumerated() {
            for row in 0..<2 {
                latents.replaceSubrange(
                    place(sample, row, columns), with: share.latents[b * size..<(b + 1) * size])
            }
        }
        let images = try gather(try decode(latents, count: range.count * 2 * (columns + 1)))
        return images.map { ImageGrid(columns: columns + 1).render($0) }
    }

    /// Interpolations between pairs of seeds: one row per pair, from the first sample of one seed to that of
    /// the other, with spherically interpolated initial noise.
    ///
    /// - Parameters:
    ///   - pairs: pairs of seeds.
    ///   - frames: images per row, including both ends; at least 2.
    ///   - settings: of a deterministic sampler, since noise added during sampling would hide the effect of
    ///     the initial noise.
    /// - Returns: all images on rank 0, row by row; nil on other ranks.
    package func interpolation(
        _ pairs: [(UInt64, UInt64)], frames: Int, _ settings: SamplingSettings,
        progress: ((Int) throws -> Void)? = nil
    ) throws -> [Image]? {
        precondition(frames > 1, "an interpolation has two ends")
        var noise: [Float] = []
        for pair in pairs {
            let ends = generator.initialNoise(0..<2, SamplingSettings(seeds: [pair.0, pair.1]))
            let (a, b) = (Array(ends[..<generator.sampleSize]), Array(ends[generator.sampleSize...]))
            for frame in 0..<frames { noise += slerp(a, b, Double(frame) / Double(frames - 1)) }
        }
        let count = pairs.count * frames
        return try gather(try draw(count, settings, initial: noise, progress: progress), count: count)
    }
}

// `sample --progress` and `sample --interpolate`: illustrations of a model's sampling.

extension SampleRun {
    /// Writes `progress.png`, which shows the samples during denoising; see `SamplePictures.denoisingStrip`.
    package func writeProgress(moments: Int, _ communicator: Communicator) throws {
        let opened = try open(communicator)
        let pictures = try opened.visiblePictures(communicator)
        let total = settings.seeds?.count ?? count ?? 4
        let strip = try withProgress(
            pictures.share(of: total).count * pictures.generator.evaluations(settings), communicator
        ) {
            try pictures.denoisingStrip(total, moments: moments, settings, progress: $0)
        }
        try communicator.collectively("writing \(output)") {
            guard let strip else { return }
            let seed = settings.seeds.map { $0.map(String.init).joined(separator: ",") }
            try strip.write(
                to: "\(output)/progress.png",
                text: [("seed", seed ?? String(settings.seed)), ("rows", "x_t, x_0")] + parameters(opened))
            printLine("Wrote the denoising progress of \(total) samples to \(output)/progress.png")
        }
    }

    /// Writes `interpolation.png` and its individual images; see `SamplePictures.interpolation`.
    package func writeInterpolation(
        _ pairs: [(UInt64, UInt64)], frames: Int, _ communicator: Communicator
    ) throws {
        let opened = try open(communicator, isOneClass: true)
        let settings = settings.resolved(for: opened.scheduler)
        guard settings.isDeterministic else {
            throw RunError(
                "--interpolate: requires deterministic sampling, but the model's sampler "
                    + "\(settings.method?.rawValue ?? "") adds noise; choose --sampler ddim")
        }
        let pictures = try opened.visiblePictures(communicator)
        let steps =
            pictures.share(of: pairs.count * frames).count * (try pictures.generator.evaluations(settings))
        let images = try withProgress(steps, communicator) {
            try pictures.interpolation(pairs, frames: frames, settings, progress: $0)
        }
        try communicator.collectively("writing \(output)") {
            guard let images else { return }
            let names = pairs.map { "\($0.0):\($0.1)" }
            for (index, image) in images.enumerated() {
                let (row, frame) = (index / frames, index % frames)
                try image.write(
                    to: "\(output)/interpolation_\(padded(row, digits: 5))_\(padded(frame, digits: 5)).png",
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

/// Spherical interpolation between two noise vectors with weight `t` from 0 to 1:
///
///     sin((1-t)θ)/sin θ · a + sin(tθ)/sin θ · b
///
/// where θ is the angle between a and b. Normally distributed noise lies near a sphere, and linear
/// interpolation would leave it.
///
/// Source: Shoemake 1985, "Animating Rotation with Quaternion Curves"; for diffusion models Song, Meng and
/// Ermon 2021 (arXiv 2010.02502), appendix D.5.
package func slerp(_ a: [Float], _ b: [Float], _ t: Double) -> [Float] {
    precondition(a.count == b.count, "vectors of \(a.count) and \(b.count) values")
    if t <= 0 { return a }
    if t >= 1 { return b }
    var (dot, aa, bb) = (0.0, 0.0, 0.0)
    for i in a.indices {
        let (x, y) = (Double(a[i]), Double(b[i]))
        dot += x * y
        aa += x * x
        bb += y * y
    }
    let cosine = max(-1, min(1, dot / max((aa * bb).squareRoot(), .leastNormalMagnitude)))
    let angle = acos(cosine)
    // Interpolate linearly if the vectors are parallel, where this equals the arc, or opposite, where the arc
    // is not unique.
    let isArc = sin(angle) > 1e-6
    let left = isArc ? sin((1 - t) * angle) / sin(angle) : 1 - t
    let right = isArc ? sin(t * angle) / sin(angle) : t
    return a.indices.map { Float(left * Double(a[$0]) + right * Double(b[$0])) }
}
