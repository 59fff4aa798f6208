import Datasets
import FileFormats
import Foundation
import Imaging
import LDMModel
import Support
import TensorCore

/// `disttrain vae encode` and `decode`: encodes or decodes images with a first stage, one at a time.
package struct FirstStagePass {
    let stage: FirstStage
    /// The folder as the user gave it.
    private let folder: String

    /// - Parameter folder: a diffusers AutoencoderKL or VQModel, or a run or pipeline that contains one.
    package init(folder: String, dtype: DType) throws {
        self.folder = folder
        stage = try FirstStage(folder: .verifiedAutoencoder(folder), dtype: dtype)
    }

    // MARK: Encoding

    /// Encodes pictures, cropped to their central square and resized to `size`; see `encode(imagesOf:)`.
    package func encode(_ pictures: [String], size: Int, to output: String) throws {
        guard !pictures.isEmpty else { throw RunError("no pictures given, expected at least one") }
        let transform = ImageTransform(size: size, channels: try stage.pictureChannels(folder))
        try encode(count: pictures.count, height: size, width: size, to: output) {
            transform.apply(try Image.read(pictures[$0])).floats()
        }
    }

    /// Encodes `image` [N, C, H, W] in [-1, 1] of a safetensors file without further processing.
    ///
    /// Writes `latent_mean` and `latent_logvar` [N, c, h, w] (for a VQ model: `latent`, not quantized), not
    /// scaled.
    package func encode(imagesOf file: String, to output: String) throws {
        let images = try SampleFile(
            file, names: ["image"], channels: stage.imageChannels, multipleOf: stage.downsamplingFactor,
            for: "the first stage")
        try encode(count: images.count, height: images.height, width: images.width, to: output) {
            try images.samples($0..<$0 + 1)
        }
    }

    private func encode(
        count: Int, height: Int, width: Int, to output: String, image: (Int) throws -> [Float]
    ) throws {
        let (h, w) = try stage.latentSize(height: height, width: width)
        let c = stage.latentChannels
        func nchw(_ latent: [Float]) -> [Float] {
            Layout.nchw(latent, batch: 1, height: h, width: w, channels: c)
        }
        var means: [Float] = []
        var logVariances: [Float] = []
        for index in 0..<count {
            let encoded = try image(index).withUnsafeBufferPointer {
                try stage.encode($0, batch: 1, height: height, width: width)
            }
            means += nchw(encoded.mean)
            if let logVariance = encoded.logVariance { logVariances += nchw(logVariance) }
        }
        let shape = [count, c, h, w]
        try SafetensorsWriter.write(
            logVariances.isEmpty
                ? [("latent", shape, means)]
                : [("latent_mean", shape, means), ("latent_logvar", shape, logVariances)], to: output)
        printLine("Wrote \(count) latents \(c)×\(h)×\(w) to \(output)")
    }

    // MARK: Decoding

    /// Decodes `latent_mean`, `latent` or `latents` [N, c, h, w] of a file, or its only tensor. Writes
    /// `image` [N, C, H, W] in approximately [-1, 1], not clamped, or PNG files to a folder.
    ///
    /// - Parameter areScaled: whether the latents are scaled for the U-Net: (latent -
    ///   shift_factor)·scaling_factor.
    package func decode(_ latents: String, areScaled: Bool, to output: String) throws {
        let file = try SampleFile(
            latents, names: ["latent_mean", "latent", "latents"], channels: stage.latentChannels,
            for: "the first stage")
        if file.name == "latents", !areScaled {
            printLine("Note: decoding 'latents' unscaled; those of `sample --dump-latents` require --scaled")
        }
        let size = (
            height: file.height * stage.downsamplingFactor, width: file.width * stage.downsamplingFactor
        )
        func images(_ body: (_ index: Int, _ image: [Float]) throws -> Void) throws {
            for index in 0..<file.count {
                var latent = try file.samples(index..<index + 1)
                if areScaled { latent = stage.unscaled(latent) }
                let image = latent.withUnsafeBufferPointer {
                    stage.decode($0, batch: 1, height: file.height, width: file.width)
                }
                try body(index, image)
            }
        }
        if output.hasSuffix(".safetensors") {
            let channels = stage.outputChannels
            var writer = try SafetensorsWriter(
                path: output,
                tensors: [SafetensorsEntry("image", shape: [file.count, channels, size.height, size.width])])
            try images { _, image in
                try writer.append(
                    "image",
                    floats: Layout.nchw(
                        image, batch: 1, height: size.height, width: size.width, channels: channels))
            }
            try writer.finish()
        } else {
            _ = try stage.pictureChannels(folder)
            try makeOutputFolder(output)
            try images { index, image in
                try Image(width: size.width, height: size.height, samples: image)
                    .write(to: "\(output)/image_\(padded(index, digits: 5)).png")
            }
        }
        printLine("Decoded \(file.count) latents to \(output)")
    }
}

extension FirstStage {
    /// Converts scaled latents of the U-Net to latents for the decoder: z / scaling_factor + shift_factor.
    func unscaled(_ latents: [Float]) -> [Float] {
        latents.map { $0 / scalingFactor + shiftFactor }
    }
}

extension Image {
    /// An image of samples [height, width, C] in [-1, 1]; C is 3, or 1 for grayscale.
    ///
    /// - Throws: `RunError` for any other number of channels.
    init(width: Int, height: Int, samples: [Float]) throws {
        let channels = samples.count / (width * height)
        guard Image.channelCounts.contains(channels) else {
            throw RunError(
                "samples with \(channels) channels are not pictures; expected 3 channels, or 1",
                exitStatus: ExitStatus.refused)
        }
        self.init(width: width, height: height, floats: samples)
    }
}
