import ArgumentParser
import DistTrain
import Foundation
import LDMModel
import TensorCore

struct BenchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bench", abstract: "Measure what this machine makes of the program.",
        subcommands: [BenchStepCommand.self])
}

struct BenchStepCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "step",
        abstract: "Time whole training steps of a U-Net on random data.",
        discussion: """
            Forward, loss, backward, gradient reduction, clipping and AdamW, alone or under mpirun:

              disttrain bench step --unet configs/unet_70m.json --precision bf16 --batch 16 --threads 2
              mpirun -np 2 --bind-to none disttrain bench step --unet configs/unet_70m.json --batch 16 --threads 1
            """)

    @Option(help: "A UNet2DModel config.json.")
    var unet: String
    @Option(help: "fp32, bf16, or auto: bf16 where the processor multiplies it natively.")
    var precision = "auto"
    @Option(help: "Samples a rank.")
    var batch = 16
    @Option(help: "Threads a rank; by default OMP_NUM_THREADS, or all cores.")
    var threads: Int?
    @Option(help: "Timed steps, after one that is not.")
    var steps = 5
    @Option(help: "Convolutions by: fastest (for each shape), winograd, onednn or openblas.")
    var backend = Backend.fastest.rawValue.lowercased()
    @Flag(help: "One line of JSON.")
    var json = false

    func run() throws {
        guard let backend = Backend.allCases.first(where: { $0.rawValue.lowercased() == backend }) else {
            throw ValidationError("--backend \(backend): expected fastest, winograd, onednn or openblas")
        }
        guard backend.isAvailable else {
            throw ValidationError("--backend \(self.backend): not on this processor, or not in this program")
        }
        let dtype = try ComputeType.dtype(named: precision)
        try onAllRanks { communicator in
            if let threads { Processor.setThreads(threads) }
            let benchmark = StepBenchmark(
                unet: try UNet2DConfig(contentsOf: unet), dtype: dtype, backend: backend, batch: batch,
                steps: steps)
            let result = try benchmark.run(communicator)
            if communicator.isRoot { print(json ? Self.line(result) : Self.table(result)) }
        }
    }

    static func line(_ r: StepBenchmark.Result) -> String {
        let breakdown = r.breakdown.map { "\"\($0.name)\": \(fixed($0.seconds, 4))" }.joined(separator: ", ")
        return
            "{\"program\": \"disttrain\", \"backend\": \"\(r.backend)\", \"precision\": \"\(r.precision)\", "
            + "\"ranks\": \(r.ranks), \"threads_per_rank\": \(r.threadsPerRank), "
            + "\"batch_per_rank\": \(r.batchPerRank), \"seconds_per_step\": \(fixed(r.secondsPerStep, 4)), "
            + "\"images_per_second\": \(fixed(r.imagesPerSecond, 2)), \"peak_rss_mib\": \(r.peakRSSMiB), "
            + "\"breakdown\": {\(breakdown)}}"
    }

    static func table(_ r: StepBenchmark.Result) -> String {
        var lines = [
            "\(r.parameters) parameters, \(r.precision), \(r.ranks) ranks × \(r.threadsPerRank) threads, "
                + "\(r.batchPerRank) images a rank",
            "processor \(Processor.features); \(r.backend); OpenBLAS \(Processor.openBLASKernels)",
            "\(fixed(r.imagesPerSecond, 2)) images/s, \(fixed(r.secondsPerStep, 3)) s a step, "
                + "\(r.peakRSSMiB) MiB peak",
        ]
        for (name, seconds) in r.breakdown {
            let share = fixed(100 * seconds / r.secondsPerStep, 1)
            lines.append(
                "  \(name.padding(toLength: 30, withPad: " ", startingAt: 0)) \(fixed(seconds, 3)) s  \(share) %"
            )
        }
        return lines.joined(separator: "\n")
    }
}

/// A number with a fixed count of decimals.
func fixed(_ value: Double, _ decimals: Int) -> String { String(format: "%.\(decimals)f", value) }

enum ComputeType {
    /// The type that `train.precision` names.
    static func dtype(named name: String) throws -> DType {
        switch name {
        case "fp32": return .float32
        case "bf16": return .bfloat16
        case "auto": return Processor.hasNativeBFloat16 ? .bfloat16 : .float32
        default: throw ValidationError("precision \(name): expected fp32, bf16 or auto")
        }
    }
}
