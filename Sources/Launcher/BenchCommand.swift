import ArgumentParser
import Communication
import Configuration
import DistTrain
import FileFormats
import Foundation
import LDMModel
import Planning
import Supervision
import Support
import TensorCore

struct BenchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench", abstract: "Run benchmarks on this machine.",
        subcommands: [
            BenchStepCommand.self, BenchSampleCommand.self, BenchVAECommand.self, BenchKernelsCommand.self,
            BenchAllReduceCommand.self, BenchCheckpointCommand.self, BenchModelCommand.self,
        ])
}

/// Options shared by all model benchmarks.
struct BenchOptions: ParsableArguments {
    @Option(help: "Compute type: fp32, bf16, or auto (bf16 if the processor supports it natively).")
    var precision = "auto"
    @Option(help: "Images per rank.")
    var batch = 16
    @Option(help: "Threads per rank. Default: OMP_NUM_THREADS, or all cores.")
    var threads: Int?
    @Option(help: "Convolution backend: fastest (for each shape), winograd, onednn or openblas.")
    var backend = Backend.fastest.rawValue.lowercased()
    @Flag(help: "Print one line of JSON.")
    var json = false

    func validate() throws {
        guard batch >= 1 else { throw ValidationError("--batch \(batch): expected 1 or more") }
        guard threads ?? 1 >= 1 else { throw ValidationError("--threads \(threads!): expected 1 or more") }
        _ = try ComputeType.dtype(named: precision)
        _ = try chosenBackend()
    }

    func chosenBackend() throws -> Backend {
        guard let chosen = Backend.allCases.first(where: { $0.rawValue.lowercased() == backend }) else {
            throw ValidationError("--backend \(backend): expected fastest, winograd, onednn or openblas")
        }
        guard chosen.isAvailable else {
            throw ValidationError("--backend \(backend): not supported by this processor, or not built in")
        }
        return chosen
    }

    /// Measures on all ranks. Rank 0 warns about variables that restrict the kernel libraries, and prints the
    /// reports.
    func run(
        _ command: some ParsableCommand,
        _ measure: (Communicator, DType, Backend) throws -> [BenchmarkReport]
    ) throws {
        let (dtype, backend) = (try ComputeType.dtype(named: precision), try chosenBackend())
        try onAllRanks(command) { communicator in
            for report in try measure(communicator, dtype, backend) where communicator.isRoot {
                print(json ? report.json : report.table)
            }
        }
    }

    /// Like `run`, for a benchmark that prints its own results.
    func onAllRanks(_ command: some ParsableCommand, _ measure: (Communicator) throws -> Void) throws {
        try command.onAllRanks { communicator in
            for warning in KernelLimits.warnings() where communicator.isRoot {
                Console.error.write("warning: \(warning)\n")
            }
            if let threads { Processor.setThreads(threads) }
            try measure(communicator)
        }
    }
}

struct BenchStepCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "step",
        abstract: "Benchmark complete training steps of a U-Net on random data.",
        discussion: """
            Forward, loss, backward, gradient reduction, clipping and AdamW, on one process or under mpirun:

              disttrain bench step --unet configs/unet_70m.json --precision bf16 --batch 16 --threads 2
              mpirun -np 2 --bind-to none disttrain bench step --unet configs/unet_70m.json --batch 16 --threads 1

            Prints images/s from the median step time, GFLOP/s of direct convolution, their fraction of the \
            ceilings measured in the same run (OpenBLAS matrix product, oneDNN convolution), and a breakdown of \
            rank 0's time. --trace writes a file for chrome://tracing or ui.perfetto.dev.
            """)

    @Option(help: "UNet2DModel config.json, or run configuration (.yaml).", completion: .file())
    var unet: String
    @OptionGroup var options: BenchOptions
    @Option(help: "Number of timed steps, after one warm-up step.")
    var steps = 5
    @Option(help: "Also maintain an exponential moving average of the weights, with this decay.")
    var ema: Double?
    @Option(help: "optimizer: each rank keeps its shard of the training state; none: all of it.")
    var sharding = Sharding.optimizer
    @Option(help: "Type of gradients in transfer between ranks: fp32 or bf16.")
    var reduceDtype = ReduceDType.fp32
    @Option(help: "Write a Chrome trace of the timed steps of all ranks.", completion: .file())
    var trace: String?

    func validate() throws {
        guard steps >= 1 else { throw ValidationError("--steps \(steps): expected 1 or more") }
        guard (0...1).contains(ema ?? 0) else { throw ValidationError("--ema \(ema!): expected 0 to 1") }
    }

    func run() throws {
        try options.run(self) { communicator, dtype, backend in
            let benchmark = StepBenchmark(
                unet: try BenchModel.unet(unet), dtype: dtype, backend: backend,
                batch: options.batch, steps: steps, averageDecay: ema, sharding: sharding,
                reduceDType: reduceDtype == .bf16 ? .bfloat16 : .float32, tracePath: trace)
            return [try benchmark.run(communicator)]
        }
    }
}

extension Sharding: ExpressibleByArgument {}
extension ReduceDType: ExpressibleByArgument {}

/// Formats a number with a fixed number of decimals.
func fixed(_ value: Double, _ decimals: Int) -> String { String(format: "%.\(decimals)f", value) }

enum ComputeType {
    /// The type that `train.precision` specifies.
    static func dtype(named name: String) throws -> DType {
        switch name {
        case "fp32": return .float32
        case "bf16": return .bfloat16
        case "auto": return Processor.hasNativeBFloat16 ? .bfloat16 : .float32
        default: throw ValidationError("precision \(name): expected fp32, bf16 or auto")
        }
    }

    /// Like `dtype(named:)`, but resolves `auto` to the same type on all ranks. Collective.
    static func dtype(named name: String, _ communicator: Communicator) throws -> DType {
        let own = try dtype(named: name)
        return name == "auto" ? try communicator.automaticDType() : own
    }
}

/// Reads the model of a benchmark from a diffusers config.json or from the `model` section of a run's .yaml.
enum BenchModel {
    static func unet(_ path: String) throws -> UNet2DConfig {
        try isRun(path)
            ? Configuration.load(path: path, locate: Configuration.locateModel).model
            : UNet2DConfig(contentsOf: path)
    }

    static func autoencoder(_ path: String) throws -> AutoencoderKLConfig {
        try isRun(path)
            ? AutoencoderConfiguration.load(path: path, locate: AutoencoderConfiguration.locateModel).model
            : AutoencoderKLConfig(contentsOf: path)
    }

    /// A U-Net or an AutoencoderKL, depending on the file.
    static func either(_ path: String) throws -> ModelConfig {
        guard isRun(path) else {
            let isAutoencoder =
                try ConfigNode(jsonFile: path)["_class_name"]?.value == .string("AutoencoderKL")
            return isAutoencoder ? .autoencoderKL(try autoencoder(path)) : .unet(try unet(path))
        }
        do {
            return .unet(try unet(path))
        } catch let asDiffusion {
            guard let model = try? autoencoder(path) else { throw asDiffusion }
            return .autoencoderKL(model)
        }
    }

    private static func isRun(_ path: String) -> Bool { path.hasSuffix(".yaml") || path.hasSuffix(".yml") }
}

struct BenchModelCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "model", abstract: "Print a model's config.json in the format of diffusers.",
        discussion: "scripts/bench passes it to PyTorch, so that both sides measure the same model.")

    @Argument(help: "Run configuration (.yaml), or config.json.", completion: .file())
    var model: String

    func run() throws {
        try onAllRanks { communicator in
            guard communicator.isRoot else { return }
            switch try BenchModel.either(model) {
            case .unet(let config): print(try config.jsonText(), terminator: "")
            case .autoencoderKL(let config): print(try config.jsonText(), terminator: "")
            case .vqModel(let config): print(try config.jsonText(), terminator: "")
            }
        }
    }
}

struct BenchSampleCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sample",
        abstract: "Benchmark the U-Net evaluations of sampling.",
        discussion: """
            Forward passes only, on random data; each rank has its own batch:

              disttrain bench sample --unet configs/unet_70m.json --precision bf16 --batch 16 --threads 2

            Images/s are evaluations/s. A sample with 50 denoising steps takes 50 evaluations.
            """)

    @Option(help: "UNet2DModel config.json, or run configuration (.yaml).", completion: .file())
    var unet: String
    @OptionGroup var options: BenchOptions
    @Option(help: "Number of timed evaluations of the batch, after one warm-up evaluation.")
    var evaluations = 5

    func validate() throws {
        guard evaluations >= 1 else {
            throw ValidationError("--evaluations \(evaluations): expected 1 or more")
        }
    }

    func run() throws {
        try options.run(self) { communicator, dtype, backend in
            let benchmark = SampleBenchmark(
                unet: try BenchModel.unet(unet), dtype: dtype, backend: backend, batch: options.batch,
                evaluations: evaluations)
            return [try benchmark.run(communicator)]
        }
    }
}

struct BenchVAECommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "vae",
        abstract: "Benchmark a first stage: encoding images and decoding latents.",
        discussion: """
            An AutoencoderKL with random weights, on random data; each rank has its own batch:

              disttrain bench vae --vae configs/sd_vae_ft_mse.json --size 256 --precision bf16 --batch 4 --threads 2

            Prints two reports, encoding first.
            """)

    @Option(help: "AutoencoderKL config.json, or `vae train` configuration (.yaml).", completion: .file())
    var vae: String
    @Option(
        help: ArgumentHelp("Image size. Default: the model's sample_size.", valueName: "pixels"))
    var size: Int?
    @OptionGroup var options: BenchOptions
    @Option(help: "Number of timed passes of the batch in each direction, after one warm-up pass.")
    var passes = 3

    func validate() throws {
        guard passes >= 1 else { throw ValidationError("--passes \(passes): expected 1 or more") }
        guard size ?? 1 >= 1 else { throw ValidationError("--size \(size!): expected 1 or more") }
    }

    func run() throws {
        try options.run(self) { communicator, dtype, backend in
            let vae = try BenchModel.autoencoder(vae)
            let benchmark = VAEBenchmark(
                vae: vae, size: size.map { SpatialSize($0) } ?? vae.sampleSize, dtype: dtype,
                backend: backend,
                batch: options.batch, passes: passes)
            return try benchmark.run(communicator)
        }
    }
}

struct BenchCheckpointCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "checkpoint",
        abstract: "Benchmark saving a U-Net's training state during training.",
        discussion: """
            Trains on random data, saves during training and without it, writes plain files of the same size for \
            comparison, and loads the checkpoint:

              disttrain launch -n 2 --threads 1 -- bench checkpoint --unet configs/unet_70m.json --folder runs
              disttrain launch -n 3 --threads 1 -- bench checkpoint --unet configs/unet_70m.json --saved-by 2

            Write times include fsync. Load times include checksum verification; the files are in the page cache. \
            Save times during training include deleting the previous checkpoint; those without training do not. \
            Files written to the folder are removed again.
            """)

    @Option(help: "UNet2DModel config.json, or run configuration (.yaml).", completion: .file())
    var unet: String
    @Option(help: "Existing folder on the disk to measure.", completion: .directory)
    var folder = "."
    @OptionGroup var options: BenchOptions
    @Option(help: "Number of timed steps; their median is reported.")
    var steps = 3
    @Option(help: "Number of saves and loads without concurrent training; their medians are reported.")
    var repeats = 3
    @Option(help: "Also load the checkpoint with the layout that this number of ranks would have written.")
    var savedBy: Int?
    @Option(help: "Also save an exponential moving average of the weights, with this decay.")
    var ema: Double?
    @Option(help: "optimizer: each rank keeps its shard of the training state; none: all of it.")
    var sharding = Sharding.optimizer

    func validate() throws {
        for (name, count) in [("--steps", steps), ("--repeats", repeats), ("--saved-by", savedBy ?? 1)]
        where count < 1 { throw ValidationError("\(name) \(count): expected 1 or more") }
    }

    func run() throws {
        let (dtype, backend) = (try ComputeType.dtype(named: options.precision), try options.chosenBackend())
        try options.onAllRanks(self) { communicator in
            let benchmark = CheckpointBenchmark(
                step: StepBenchmark(
                    unet: try BenchModel.unet(unet), dtype: dtype, backend: backend, batch: options.batch,
                    steps: steps, averageDecay: ema, sharding: sharding),
                folder: folder, repeats: repeats, savedBy: savedBy)
            let result = try benchmark.run(communicator)
            if communicator.isRoot { print(options.json ? result.json : result.table) }
        }
    }
}
