import ArgumentParser
import DistTrain
import FileFormats
import LDMModel

struct CheckpointExportCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "export", abstract: "Export any checkpoint as a diffusers folder.",
        discussion: """
            Writes what a finished run has in model/: a pipeline for DiffusionPipeline.from_pretrained, which \
            includes the autoencoder if the model was trained on latents; for `vae train`, an AutoencoderKL folder. \
            Memory use does not grow with the model size.

              disttrain checkpoint export --model runs/faces --output faces
              disttrain checkpoint export --model runs/faces/checkpoints/step-00015000 --weights unet --dtype fp16 \\
                --max-shard-size 2GB --output faces_fp16

            If a run was trained with ema.sigma_rel, averages of any width can be computed from its snapshots; the \
            approximation error of the profile is reported (docs/ema.md):

              disttrain checkpoint export --model runs/faces --sigma-rel 0.08 --output faces_008
            """)

    @Option(help: ArgumentHelp("A run (its newest checkpoint is used) or a checkpoint.", valueName: "folder"))
    var model: String
    @Option(
        help: ArgumentHelp(
            "Weights to export: unet, ema-DECAY or ema-power-WIDTH. Default: the slowest average.",
            valueName: "name"))
    var weights: String?
    @Option(
        help: ArgumentHelp(
            "Instead, export an average of this relative width, computed from the run's snapshots.",
            valueName: "width"))
    var sigmaRel: Double?
    @Option(
        help: ArgumentHelp("Last step of the --sigma-rel average. Default: the newest.", valueName: "n"))
    var atStep: Int?
    @Option(
        help: "Type of the exported weights: fp32, fp16 or bf16. Files of a first stage are copied unchanged."
    )
    var dtype = WeightType.fp32
    @Option(
        help: ArgumentHelp(
            "Maximum size of a weights file, such as 500MB or 5GB. Default: one file.", valueName: "size"))
    var maxShardSize: ByteSize?
    @Option(
        help: ArgumentHelp(
            "Autoencoder to include. Default: the one that the run was trained with.", valueName: "folder"))
    var firstStage: String?
    @Option(help: ArgumentHelp("Output folder; an existing pipeline is replaced.", valueName: "folder"))
    var output: String

    @Flag(
        help:
            "Also write README.md for the Hugging Face hub, with the training facts and the newest sample grid."
    )
    var modelCard = false

    @Option(
        help: ArgumentHelp(
            "License for --model-card: an identifier of the hub, such as mit.", valueName: "name"))
    var license: String?

    func validate() throws {
        guard sigmaRel == nil || weights == nil else {
            throw ValidationError("--sigma-rel and --weights: expected one of them")
        }
        guard license == nil || modelCard else {
            throw ValidationError("--license: requires --model-card")
        }
        if let license,
            !license.allSatisfy({ $0.isASCII && ($0.isLetter || $0.isNumber || "-.".contains($0)) })
        {
            throw ValidationError(
                "--license: found '\(license)', expected an identifier of the hub, such as apache-2.0 or other"
            )
        }
        guard sigmaRel != nil || atStep == nil else {
            throw ValidationError(
                "--at-step: requires --sigma-rel; for a checkpoint, give its folder as --model")
        }
    }

    func run() throws {
        try onAllRanks { communicator in
            try communicator.collectively("exporting \(model)") {
                guard communicator.isRoot else { return }
                try CheckpointExport(
                    model: model, weights: weights, average: sigmaRel.map { ($0, atStep) },
                    firstStage: firstStage,
                    format: WeightFormat(dtype: dtype.stored, maxShardBytes: maxShardSize?.bytes),
                    output: output, card: modelCard ? CheckpointExport.Card(license: license) : nil
                ).run()
            }
        }
    }
}

/// Data types for exported weights.
enum WeightType: String, CaseIterable, ExpressibleByArgument {
    case fp32, fp16, bf16

    var stored: SafetensorsDType {
        switch self {
        case .fp32: .f32
        case .fp16: .f16
        case .bf16: .bf16
        }
    }
}

/// A size in bytes with diffusers' units: 5GB is 5·10⁹, 5GiB is 5·2³⁰.
struct ByteSize: ExpressibleByArgument {
    let bytes: Int

    init?(argument: String) {
        let units = [
            ("KIB", 1 << 10), ("MIB", 1 << 20), ("GIB", 1 << 30), ("TIB", 1 << 40), ("KB", 1_000),
            ("MB", 1_000_000), ("GB", 1_000_000_000), ("TB", 1_000_000_000_000), ("B", 1), ("", 1),
        ]
        let text = argument.uppercased()
        guard let unit = units.first(where: { text.hasSuffix($0.0) }),
            let count = Int(text.dropLast(unit.0.count)), count > 0
        else { return nil }
        let (bytes, overflow) = count.multipliedReportingOverflow(by: unit.1)
        if overflow { return nil }
        self.bytes = bytes
    }
}
