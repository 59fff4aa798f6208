import Foundation
import Imaging
import LDMModel

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
        let columns = max(1, min(moments, settings.steps))
        // The selection includes the first and the last step.
        let indices = (0..<columns).map { column in
            columns == 1 ? 0 : column * (settings.steps - 1) / (columns - 1)
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
    ///   - settings: deterministic DDIM, since noise added during sampling would hide the effect of the
    ///     initial noise.
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
