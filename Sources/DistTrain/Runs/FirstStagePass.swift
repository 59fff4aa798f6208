import Foundation
import LDMModel
import TensorCore

/// `disttrain vae encode` and `decode`: pictures through a first stage, one by one, in bounded memory.
public struct FirstStagePass {
    let stage: FirstStage

    /// - Parameter folder: a diffusers AutoencoderKL or VQModel.
    public init(folder: String, dtype: DType) throws {
        stage = try FirstStage(folder: ModelFolder(folder), dtype: dtype)
    }

    /// Writes `latent_mean` and `latent_logvar` [N, c, h, w] (a VQ model: `latent`), not scaled.
    public func encode(_ pictures: [String], size: Int, to output: String) throws {
        guard !pictures.isEmpty else { throw RunError("no pictures named, expected at least one") }
        let transform = ImageTransform(size: size)
        var means: [Float] = []
        var logVariances: [Float] = []
        var shape: [Int] = []
        for picture in pictures {
            let pixels = transform.apply(try Image.read(picture)).floats()
            let encoded = try pixels.withUnsafeBufferPointer {
                try stage.encode($0, batch: 1, height: size, width: size)
            }
            let (h, w, c) = (encoded.shape[1], encoded.shape[2], encoded.shape[3])
            shape = [pictures.count, c, h, w]
            means += Layout.nchw(encoded.mean, batch: 1, height: h, width: w, channels: c)
            if let logVariance = encoded.logVariance {
                logVariances += Layout.nchw(logVariance, batch: 1, height: h, width: w, channels: c)
            }
        }
        let tensors =
            logVariances.isEmpty
            ? [("latent", shape, means)]
            : [("latent_mean", shape, means), ("latent_logvar", shape, logVariances)]
        try SafetensorsWriter.write(tensors, to: output)
        printLine("Wrote \(pictures.count) latents \(shape[1])×\(shape[2])×\(shape[3]) to \(output)")
    }

    /// Writes `image` [N, C, H, W], or PNG files into a folder.
    public func decode(_ latents: String, to output: String) throws {
        let file = try SafetensorsFile(path: latents)
        guard let name = ["latent_mean", "latent"].first(where: { file.contains($0) }) else {
            throw RunError(
                "\(latents): holds \(file.names.joined(separator: ", ")), expected latent_mean or latent",
                exitStatus: ExitStatus.refused)
        }
        let shape = try file.info(of: name).shape
        guard shape.count == 4, shape[1] == stage.latentChannels else {
            throw RunError(
                "\(latents): \(name) is \(shape), expected [N, \(stage.latentChannels), h, w]",
                exitStatus: ExitStatus.refused)
        }
        let (h, w, f) = (shape[2], shape[3], stage.downsamplingFactor)
        let asFile = output.hasSuffix(".safetensors")
        if !asFile {
            try FileManager.default.createDirectory(atPath: output, withIntermediateDirectories: true)
        }
        var pixels: [Float] = []
        for index in 0..<shape[0] {
            let latent = Layout.nhwc(
                try file.floats(of: name, rows: index..<index + 1), batch: 1, height: h, width: w,
                channels: shape[1])
            let decoded = latent.withUnsafeBufferPointer { stage.decode($0, batch: 1, height: h, width: w) }
            if asFile {
                pixels += Layout.nchw(
                    decoded, batch: 1, height: h * f, width: w * f, channels: stage.outputChannels)
            } else {
                let name = "image_\(String(repeating: "0", count: max(0, 5 - "\(index)".count)))\(index).png"
                try Image(width: w * f, height: h * f, floats: decoded).write(to: "\(output)/\(name)")
            }
        }
        if asFile {
            let tensors = [("image", [shape[0], stage.outputChannels, h * f, w * f], pixels)]
            try SafetensorsWriter.write(tensors, to: output)
        }
        printLine("Decoded \(shape[0]) latents to \(output)")
    }
}
