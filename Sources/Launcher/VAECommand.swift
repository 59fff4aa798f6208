import ArgumentParser
import Checkpointing
import Communication
import Configuration
import DistTrain
import Evaluation
import Foundation
import LDMModel
import Support

struct VAECommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "vae", abstract: "Train a first stage, or encode and decode images with one.",
        subcommands: [VAETrainCommand.self, VAEEncodeCommand.self, VAEDecodeCommand.self])
}

struct VAETrainCommand: TrainingCommand {
    static let configuration = CommandConfiguration(
        commandName: "train", abstract: "Train an AutoencoderKL on images.",
        discussion: """
            Uses the same data-parallel trainer as `disttrain train`. samples/ shows images next to their \
            reconstructions; model/ is a diffusers AutoencoderKL with a measured scaling_factor.

              disttrain launch -n 2 -- vae train --config configs/vae_quickstart.yaml --output runs/vae
            """)

    @OptionGroup var options: TrainingOptions
    typealias Values = AutoencoderConfiguration
}

/// Options shared by `encode` and `decode`.
struct FirstStageOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Folder of a diffusers AutoencoderKL or VQModel, or a pipeline or run that contains one.",
            valueName: "folder"))
    var model: String
    @Option(help: "Compute type: fp32, bf16, or auto (bf16 if the processor supports it natively).")
    var precision = "fp32"

    /// Opens the first stage and runs the body, on rank 0 only.
    func onRoot(_ what: String, _ communicator: Communicator, _ body: (FirstStagePass) throws -> Void)
        throws
    {
        let dtype = try ComputeType.dtype(named: precision)
        try communicator.collectively(what) {
            guard communicator.isRoot else { return }
            try body(FirstStagePass(folder: model, dtype: dtype))
        }
    }
}

struct VAEEncodeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "encode", abstract: "Encode images into a safetensors file of latents.",
        discussion: """
            Reads image files, or one safetensors file with the tensor "image" [N, C, H, W] in [-1, 1], which is encoded \
            unchanged. Image files become grayscale for a first stage of one channel. Writes latent_mean and latent_logvar [N, c, h, w] (for a VQ model: latent), unscaled, in NCHW as \
            in diffusers.

              disttrain vae encode --model runs/vae/model --size 64 photo1.jpg photo2.png --output latents.safetensors
              disttrain vae encode --model runs/vae/model images.safetensors --output latents.safetensors
            """)

    @OptionGroup var options: FirstStageOptions
    @Option(help: ArgumentHelp("Size to which images are cropped and resized.", valueName: "pixels"))
    var size: Int?
    @Option(help: ArgumentHelp("Output file.", valueName: "file"))
    var output: String
    @Argument(help: ArgumentHelp("PNG, JPEG or WebP files, or one .safetensors file.", valueName: "images"))
    var images: [String]

    private var isTensorFile: Bool { images.contains { $0.hasSuffix(".safetensors") } }

    func validate() throws {
        if isTensorFile, images.count > 1 {
            throw ValidationError(
                "\(images.count) files: expected image files, or a single .safetensors file")
        }
        if isTensorFile, size != nil {
            throw ValidationError(
                "--size: only for image files; the images of a .safetensors file are encoded unchanged")
        }
        if !isTensorFile, size == nil {
            throw ValidationError("--size: required for image files, which are cropped and resized to it")
        }
        if let size, size < 1 { throw ValidationError("--size \(size): expected at least 1") }
    }

    func run() throws {
        try onAllRanks { communicator in
            try options.onRoot("encoding", communicator) { stage in
                if let size {
                    try stage.encode(images, size: size, to: output)
                } else {
                    try stage.encode(imagesOf: images[0], to: output)
                }
            }
        }
    }
}

struct VAEDecodeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "decode", abstract: "Decode a safetensors file of latents into images.",
        discussion: """
            Reads the file's tensor latent_mean, latent or latents [N, c, h, w], or its only tensor: unscaled, as the \
            encoder writes them. Latents that a U-Net works on, such as those from `sample --dump-latents`, are scaled: \
            with --scaled they are first divided by scaling_factor, and shift_factor is added. --output \
            FILE.safetensors writes image [N, C, H, W] in about [-1, 1]; --output FOLDER writes PNG files.

              disttrain vae decode --model runs/vae/model latents.safetensors --output images.safetensors
              disttrain vae decode --model runs/faces/model --scaled out.safetensors --output pictures
            """)

    @OptionGroup var options: FirstStageOptions
    @Option(help: ArgumentHelp("Output .safetensors file or folder.", valueName: "path"))
    var output: String
    @Flag(help: "The latents are scaled, as for a U-Net.")
    var scaled = false
    @Argument(help: ArgumentHelp("File with latents.", valueName: "latents"))
    var latents: String

    func run() throws {
        try onAllRanks { communicator in
            try options.onRoot("decoding", communicator) {
                try $0.decode(latents, areScaled: scaled, to: output)
            }
        }
    }
}
