import ArgumentParser
import DistTrain
import Foundation

struct VAECommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "vae", abstract: "Train a first stage, or pass images through one.",
        subcommands: [VAETrainCommand.self, VAEEncodeCommand.self, VAEDecodeCommand.self])
}

struct VAETrainCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "train", abstract: "Train an AutoencoderKL on images.",
        discussion: """
            The same data-parallel trainer as `disttrain train`. Pictures in samples/ show images beside their \
            reconstructions; model/ is a diffusers AutoencoderKL whose scaling_factor is measured.

              disttrain launch -n 2 -- vae train --config configs/vae_quickstart.yaml --output runs/vae
            """)

    @OptionGroup var options: TrainingOptions

    func run() throws {
        try onAllRanks { communicator in
            let configuration = try AutoencoderConfiguration.load(
                path: options.config, overrides: options.overrides)
            try AutoencoderRun(
                configuration, output: options.output, resume: Resume(options.resume)
            ).train(communicator)
        }
    }
}

struct VAEEncodeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "encode", abstract: "Encode pictures into a safetensors file of latents.",
        discussion: """
            Writes latent_mean and latent_logvar [N, c, h, w], not scaled, in NCHW as diffusers has them.

              disttrain vae encode --model runs/vae/model --size 64 photo1.jpg photo2.png --output latents.safetensors
            """)

    @Option(help: ArgumentHelp("Diffusers folder of an AutoencoderKL or VQModel.", valueName: "folder"))
    var model: String
    @Option(help: ArgumentHelp("Side that pictures are cropped and resized to.", valueName: "pixels"))
    var size: Int
    @Option(help: ArgumentHelp("File to write.", valueName: "file"))
    var output: String
    @Option(help: "fp32, bf16 or auto.")
    var precision = "fp32"
    @Argument(help: ArgumentHelp("PNG or JPEG files.", valueName: "pictures"))
    var pictures: [String]

    func run() throws {
        let dtype = try ComputeType.dtype(named: precision)
        try onAllRanks { communicator in
            try communicator.collectively("encoding") {
                guard communicator.isRoot else { return }
                try FirstStagePass(folder: model, dtype: dtype).encode(pictures, size: size, to: output)
            }
        }
    }
}

struct VAEDecodeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "decode", abstract: "Decode a safetensors file of latents into pictures.",
        discussion: """
            Takes the file's tensor "latent_mean" or "latent" [N, c, h, w], not scaled. --output FILE.safetensors \
            writes "image" [N, 3, H, W] in about [-1, 1]; --output FOLDER writes PNG files.
            """)

    @Option(help: ArgumentHelp("Diffusers folder of an AutoencoderKL or VQModel.", valueName: "folder"))
    var model: String
    @Option(help: ArgumentHelp("A .safetensors file, or a folder.", valueName: "path"))
    var output: String
    @Option(help: "fp32, bf16 or auto.")
    var precision = "fp32"
    @Argument(help: ArgumentHelp("The latents' file.", valueName: "latents"))
    var latents: String

    func run() throws {
        let dtype = try ComputeType.dtype(named: precision)
        try onAllRanks { communicator in
            try communicator.collectively("decoding") {
                guard communicator.isRoot else { return }
                try FirstStagePass(folder: model, dtype: dtype).decode(latents, to: output)
            }
        }
    }
}
