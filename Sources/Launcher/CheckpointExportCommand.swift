import ArgumentParser
import DistTrain
import FileFormats
import LDMModel

struct CheckpointExportCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "export", abstract: "Make a diffusers folder from any checkpoint.",
        discussion: """
            Writes what a finished run has in model/: a pipeline that DiffusionPipeline.from_pretrained opens, behind \
            a first stage with the autoencoder in it; of `vae train`, an AutoencoderKL's folder. The memory it takes \
            does not grow with the model.

              disttrain checkpoint export --model runs/faces --output faces
              disttrain checkpoint export --model runs/faces/checkpoints/step-00015000 --weights unet --dtype fp16 \\
                --max-shard-size 2GB --output faces_fp16

            A run that was trained with ema.sigma_rel has averages of every width, made from its snapshots; how near \
            each comes to its profile is reported (docs/ema.md):

              disttrain checkpoint export --model runs/faces --sigma-rel 0.08 --output faces_008
            """)

    @Option(help: ArgumentHelp("A run (its newest checkpoint), or a checkpoint.", valueName: "folder"))
    var model: String
    @Option(
        help: ArgumentHelp(
            "unet, ema-DECAY or ema-power-WIDTH. Default: the slowest average.", valueName: "name"))
    var weights: String?
    @Option(
        help: ArgumentHelp(
            "An average of this relative width in their place, made from the run's snapshots.",
            valueName: "width"))
    var sigmaRel: Double?
    @Option(
        help: ArgumentHelp("The step that --sigma-rel ends at. Default: the last there is.", valueName: "n"))
    var atStep: Int?
    @Option(
        help: "Type of the trained weights: fp32, fp16 or bf16. A first stage's files are copied as they are."
    )
    var dtype = WeightType.fp32
    @Option(
        help: ArgumentHelp(
            "Most bytes in one file of weights, such as 500MB or 5GB. Default: one file.", valueName: "size"))
    var maxShardSize: ByteSize?
    @Option(
        help: ArgumentHelp(
            "Autoencoder to put in. Default: the one that the run was trained behind.", valueName: "folder"))
    var firstStage: String?
    @Option(help: ArgumentHelp("Folder to write; an earlier pipeline is replaced.", valueName: "folder"))
    var output: String

    func validate() throws {
        guard sigmaRel == nil || weights == nil else {
            throw ValidationError("--sigma-rel and --weights: expected one of them")
        }
        guard sigmaRel != nil || atStep == nil else {
            throw ValidationError(
                "--at-step goes with --sigma-rel; of a checkpoint, give its folder as --model")
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
                    output: output
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
