import ArgumentParser
import Communication
import Configuration
import DistTrain
import Foundation
import Planning
import Supervision
import Support
import TensorCore

struct BenchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench", abstract: "Measure what this machine makes of the program.",
        subcommands: [
            BenchStepCommand.self, BenchSampleCommand.self, BenchVAECommand.self, BenchKernelsCommand.self,
            BenchAllReduceCommand.self, BenchCheckpointCommand.self, BenchModelCommand.self,
        ])
}

/// Options shared by all model benchmarks.
struct BenchOptions: ParsableArguments {
    @Option(help: "fp32, bf16, or auto: bf16 where the processor multiplies it natively.")
    var precision = "auto"
    @Option(help: "Images a rank.")
    var batch = 16
    @Option(help: "Threads a rank; by default OMP_NUM_THREADS, or all cores.")
    var threads: Int?
    @Option(help: "Convolutions by: fastest (for each shape), winograd, onednn or openblas.")
    var backend = Backend.fastest.rawValue.lowercased()
    @Flag(help: "One line of JSON.")
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
            throw ValidationError("--backend \(backend): not on this processor, or not in this program")
        }
        return chosen
    }

    /// Measures on all ranks. Rank 0 warns about variables that restrict the kernel libraries, and prints the
    /// reports.
    func run(
        _ command: some ParsableCommand,
        _ measure: (any Communicator, DType, Backend) throws -> [BenchmarkReport]
    ) throws {
        let (dtype, backend) = (try ComputeType.dtype(named: precision), try chosenBackend())
        try onAllRanks(command) { communicator in
            for report in try measure(communicator, dtype, backend) where communicator.isRoot {
                print(json ? report.json : report.table)
            }
        }
    }

    /// Like `run`, for a benchmark that prints its own results.
    func onAllRanks(_ command: some ParsableCommand, _ measure: (any Communicator) throws -> Void) throws {
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
        abstract: "Time whole training steps of a U-Net on random data.",
        discussion: """
            Forward, loss, backward, gradient reduction, clipping and AdamW, alone or under mpirun:

              disttrain bench step --unet configs/unet_70m.json --precision bf16 --batch 16 --threads 2
              mpirun -np 2 --bind-to none disttrain bench step --unet configs/unet_70m.json --batch 16 --threads 1

            Prints images a second from the median step, GFLOP/s of direct convolution, their share of the \
            ceilings that it measures in the same run (OpenBLAS's product, oneDNN's convolution), and where \
            rank 0's time went. --trace makes a file for chrome://tracing or ui.perfetto.dev.
            """)

    @Option(help: "A UNet2DModel config.json, or a run's .yaml.", completion: .file())
    var unet: String
    @OptionGroup var options: BenchOptions
    @Option(help: "Timed steps, after one that is not.")
    var steps = 5
    @Option(help: "Also keep an exponential moving average of the weights, with this decay.")
    var ema: Double?
    @Option(help: "optimizer: each rank keeps its slice of the training state; none: all of it.")
    var sharding = Sharding.optimizer
    @Option(help: "What gradients are on their way between ranks: fp32 or bf16.")
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
    static func dtype(named name: String, _ communicator: any Communicator) throws -> DType {
        let own = try dtype(named: name)
        return name == "auto" ? try communicator.automaticDType() : own
    }
}
