import FileFormats
import Foundation
import LDMModel
import Support

// B: samples of a batch, [H, W, C]: a latent (or an image, in pixel space).

/// How samples start from given images.
package struct EditSettings: Sendable {
    /// The share of the denoising steps that changes the images, above 0 to 1; nil: 0.6, or 1 with a mask.
    package var strength: Double?
    /// Steps of a jump of `RePaint`, and how often they are denoised.
    package var jumpLength: Int
    package var resampling: Int

    package init(strength: Double? = nil, jumpLength: Int = 10, resampling: Int = 10) {
        (self.strength, self.jumpLength, self.resampling) = (strength, jumpLength, resampling)
    }
}

/// The images that samples start from: image-to-image, or with a mask inpainting.
package struct GivenSamples {
    /// One for each sample of the rank, [B, H, W, C]: scaled latents or pixels in [-1, 1].
    let values: [Float]
    /// For each cell, [H, W], whether it is repainted; nil: all are.
    let mask: [Bool]?
    let settings: EditSettings

    package init(values: [Float], mask: [Bool]? = nil, settings: EditSettings = EditSettings()) {
        (self.values, self.mask, self.settings) = (values, mask, settings)
    }
}

extension SampleGenerator {
    /// Model evaluations for each sample that starts from an image.
    package func evaluations(
        _ settings: SamplingSettings, _ edit: EditSettings, hasMask: Bool
    ) throws -> Int {
        if hasMask { return try inpainting(settings, edit).evaluations }
        let sampler = try settings.sampler(of: scheduler)
        return sampler.timesteps.count - (try firstIndex(sampler, settings, edit, usual: 0.6))
    }

    /// Denoises samples `range` from noised images.
    ///
    /// - Parameter noise: [B, H, W, C], standard normal.
    func edit(
        _ given: GivenSamples, _ range: Range<Int>, _ settings: SamplingSettings, _ noise: [Float],
        _ progress: ((Int) throws -> Void)?
    ) throws -> [Float] {
        precondition(given.values.count == range.count * sampleSize, "one image is given for each sample")
        if let mask = given.mask { return try inpaint(given, mask, range, settings, noise, progress) }
        let sampler = try settings.sampler(of: scheduler)
        let first = try firstIndex(sampler, settings, given.settings, usual: 0.6)
        return try run(
            range, sampler, settings, noised(given.values, noise, sampler, first), from: first, nil, progress)
    }

    private func firstIndex(
        _ sampler: any DiffusionSampler, _ settings: SamplingSettings, _ edit: EditSettings, usual: Double
    ) throws -> Int {
        let strength = edit.strength ?? usual
        guard let first = sampler.firstIndex(strength: strength) else {
            throw RunError(
                "--strength \(strength): leaves none of \(settings.steps) steps, expected at least "
                    + "\(1 / Double(settings.steps)); or raise --steps")
        }
        return first
    }

    private func noised(
        _ clean: [Float], _ noise: [Float], _ sampler: any DiffusionSampler, _ index: Int
    ) -> [Float] {
        var sample = noise
        sample.withUnsafeMutableBufferPointer { sample in
            clean.withUnsafeBufferPointer { sampler.addNoise(sample, to: $0, index: index) }
        }
        return sample
    }

    private func inpainting(_ settings: SamplingSettings, _ edit: EditSettings) throws -> RePaint {
        let sampler = try settings.inpainting(of: scheduler)
        return RePaint(
            sampler, first: try firstIndex(sampler, settings, edit, usual: 1), jumpLength: edit.jumpLength,
            resampling: edit.resampling)
    }

    private func inpaint(
        _ given: GivenSamples, _ mask: [Bool], _ range: Range<Int>, _ settings: SamplingSettings,
        _ noise: [Float], _ progress: ((Int) throws -> Void)?
    ) throws -> [Float] {
        precondition(mask.count == height * width, "a mask has a value for each cell")
        let sampler = try settings.inpainting(of: scheduler)
        let painting = try inpainting(settings, given.settings)
        let first = try firstIndex(sampler, settings, given.settings, usual: 1)
        // From the first step on, nothing of the image remains, as in the paper.
        let initial = first == 0 ? noise : noised(given.values, noise, sampler, first)
        let (size, channels) = (sampleSize, channels)
        let scratch = UnsafeMutableBufferPointer<Float>.allocate(
            capacity: 2 * min(settings.batchSize, max(1, range.count)) * size)
        defer { scratch.deallocate() }
        let classes = try denoiser.model.config.select(settings.classes)
        return try given.values.withUnsafeBufferPointer { values in
            try inBatches(range, settings, initial) { sample, batch in
                let known = UnsafeBufferPointer(
                    rebasing: values[batch.lowerBound * size..<batch.upperBound * size])
                let drawn = UnsafeMutableBufferPointer(rebasing: scratch[..<sample.count])
                let output = UnsafeMutableBufferPointer(
                    rebasing: scratch[sample.count..<2 * sample.count])
                for (step, move) in painting.moves.enumerated() {
                    fillStepNoise(
                        drawn, step: step, first: range.lowerBound + batch.lowerBound, settings)
                    switch move {
                    case .renoise(let index):
                        painting.renoise(sample, index: index, noise: UnsafeBufferPointer(drawn))
                    case .denoise(let index):
                        denoiser.predict(
                            UnsafeBufferPointer(sample), height: height, width: width,
                            timesteps: Array(repeating: sampler.timesteps[index], count: batch.count),
                            condition: classes?.condition(
                                of: range.lowerBound + batch.lowerBound..<range.lowerBound + batch.upperBound),
                            into: output)
                        painting.denoise(
                            modelOutput: UnsafeBufferPointer(output), sample: sample, index: index,
                            known: known, isRepainted: { mask[$0 % size / channels] },
                            noise: UnsafeBufferPointer(drawn))
                        try progress?(batch.count)
                    }
                }
            }
        }
    }
}
