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
        commandName: "vae", abstract: "Train a first stage, or pass images through one.",
        subcommands: [VAETrainCommand.self, VAEEncodeCommand.self, VAEDecodeCommand.self])
}

struct VAETrainCommand: TrainingCommand {
    static let configuration = CommandConfiguration(
        commandName: "train", abstract: "Train an AutoencoderKL on images.",
        discussion: """
            The same data-parallel trainer as `disttrain train`. Pictures in samples/ show images beside their \
            reconstructions; model/ is a diffusers AutoencoderKL whose scaling_factor is measured.

              disttrain launch -n 2 -- vae train --config configs/vae_quickstart.yaml --output runs/vae
            """)

    @OptionGroup var options: TrainingOptions

    func run() throws {
        StopRequest.listen()
        let watching = options.watching
        try onAllRanks(watchedBy: watching.limits) { communicator, watcher in
            let configuration = try communicator.collectively("reading the configuration") {
                try AutoencoderConfiguration.load(
                    path: options.config, overrides: options.overrides, initFrom: options.initFrom)
            }
            try AutoencoderRun(
                configuration, output: options.output, resume: options.start,
                allowedChanges: AllowedChanges(options.allowChange), watching: watching
            ).train(communicator, watcher)
        }
    }

    func runFolder() throws -> String {
        try options.output
            ?? "runs/"
            + AutoencoderConfiguration.load(
                path: options.config, overrides: options.overrides, initFrom: options.initFrom
            ).name
    }
}

/// Options shared by `encode` and `decode`.
struct FirstStageOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Diffusers folder of an AutoencoderKL or VQModel, or a pipeline or run that has one.",
            valueName: "folder"))
    var model: String
    @Option(help: "fp32, bf16 or auto.")
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
            Takes pictures, or one safetensors file with the tensor "image" [N, 3, H, W] in [-1, 1], which is encoded \
            as it is. Writes latent_mean and latent_logvar [N, c, h, w] (a VQ model: latent), not scaled, in NCHW as \
            diffusers has them.

              disttrain vae encode --model runs/vae/model --size 64 photo1.jpg photo2.png --output latents.safetensors
              disttrain vae encode --model runs/vae/model images.safetensors --output latents.safetensors
            """)

    @OptionGroup var options: FirstStageOptions
    @Option(help: ArgumentHelp("Side that pictures are cropped and resized to.", valueName: "pixels"))
    var size: Int?
    @Option(help: ArgumentHelp("File to write.", valueName: "file"))
    var output: String
    @Argument(help: ArgumentHelp("PNG or JPEG files, or one .safetensors file.", valueName: "images"))
    var images: [String]

    private var isTensorFile: Bool { images.contains { $0.hasSuffix(".safetensors") } }

    func validate() throws {
        if isTensorFile, images.count > 1 {
            throw ValidationError("\(images.count) files: expected pictures, or one .safetensors file alone")
        }
        if isTensorFile, size != nil {
            throw ValidationError(
                "--size is for pictures; the images of a .safetensors file are taken as they are")
        }
        if !isTensorFile, size == nil {
            throw ValidationError("--size: expected the side that pictures are cropped and resized to")
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
        commandName: "decode", abstract: "Decode a safetensors file of latents into pictures.",
        discussion: """
            Takes the file's tensor latent_mean, latent or latents [N, c, h, w], or its only one: as the encoder makes \
            them, not scaled. Those that a U-Net works on, such as `sample --dump-latents` writes, are scaled: with \
            --scaled they are divided by scaling_factor first, and shift_factor is added. --output FILE.safetensors \
            writes image [N, 3, H, W] in about [-1, 1]; --output FOLDER writes PNG files.

              disttrain vae decode --model runs/vae/model latents.safetensors --output images.safetensors
              disttrain vae decode --model runs/faces/model --scaled out.safetensors --output pictures
            """)

    @OptionGroup var options: FirstStageOptions
    @Option(help: ArgumentHelp("A .safetensors file, or a folder.", valueName: "path"))
    var output: String
    @Flag(help: "The latents are scaled, as a U-Net knows them.")
    var scaled = false
    @Argument(help: ArgumentHelp("The latents' file.", valueName: "latents"))
    var latents: String

    func run() throws {
        try onAllRanks { communicator in
            try options.onRoot("decoding", communicator) {
                try $0.decode(latents, areScaled: scaled, to: output)
            }
        }
    }
}
