import ArgumentParser
import Foundation
import Planning
import Support
import TensorCore

struct BenchKernelsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "kernels",
        abstract: "Benchmark every convolution of training with every backend.",
        discussion: """
            Times the distinct convolutions and linear layers of a training step of each model and prints the \
            GFLOP/s of direct convolution for each backend. The program selects a backend by rule; a selection that \
            is more than 10 % slower than the fastest backend measured here is flagged.

              disttrain bench kernels configs/unet_70m.json --precision bf16 --batch 16 --threads 1

            Timing all models in configs/ takes many minutes.
            """)

    @Argument(
        help: ArgumentHelp(
            "config.json files or run configurations (.yaml). Default: all files in configs/.",
            valueName: "models"),
        completion: .file())
    var models: [String] = []
    @OptionGroup var options: BenchOptions

    func validate() throws {
        guard try options.chosenBackend() == .fastest else {
            throw ValidationError("--backend \(options.backend): expected none, since every backend is timed")
        }
    }

    func run() throws {
        let dtype = try ComputeType.dtype(named: options.precision)
        try options.onAllRanks(self) { communicator in
            let benchmark = try KernelBenchmark(
                models: try paths().map(BenchModel.either), dtype: dtype, batch: options.batch)
            let start = ContinuousClock.now
            let status = StatusLine()
            var nextStatus = 0.0
            if communicator.isRoot, !options.json { print(KernelTable.head) }
            let results = try benchmark.run(communicator) { result, done in
                guard communicator.isRoot else { return }
                if !options.json { print(KernelTable.line(result)) }
                let elapsed = (ContinuousClock.now - start).seconds
                guard elapsed >= nextStatus else { return }
                nextStatus = elapsed + (status.isTerminal ? 0 : 10)
                let left = elapsed * (1 - done) / done
                status.show([
                    "\(fixed(100 * done, 0)) % of \(benchmark.count) cases",
                    "\(fixed(left / 60, 1)) min left",
                ])
            }
            status.finish()
            guard communicator.isRoot else { return }
            print(options.json ? try KernelTable.json(results) : KernelTable.summary(results))
        }
    }

    private func paths() throws -> [String] {
        guard models.isEmpty else { return models }
        let names = try FileManager.default.contentsOfDirectory(atPath: "configs").filter {
            $0.hasSuffix(".json") || $0.hasSuffix(".yaml")
        }
        return names.sorted().map { "configs/\($0)" }
    }
}

/// The output of `bench kernels`.
enum KernelTable {
    private static let backends = Backend.allCases.filter { $0 != .fastest && $0.isAvailable }

    static var head: String {
        let columns = backends.map { column($0.rawValue.lowercased()) }.joined()
        return padded("case", 38) + padded("direction", 17) + padded("count", 7) + columns + "  chosen"
    }

    static func line(_ result: KernelBenchmark.Result) -> String {
        let convolution = result.convolution
        let speeds = backends.map { backend in
            let timing = result.timings.first { $0.backend == backend }
            return column(timing.map { fixed(result.speed($0) / 1e9, 0) } ?? "")
        }
        let addend = convolution.hasAddend ? " + addend" : ""
        var line = padded(convolution.summary + addend, 38) + padded(convolution.direction.rawValue, 17)
        line += padded("\(result.count)×", 7) + speeds.joined()
        line += "  \(result.pick.backend.rawValue.lowercased())"
        if result.isFlagged {
            let ratio = fixed(result.pick.seconds / result.best.seconds, 2)
            line += "  SLOW: \(result.best.backend.rawValue.lowercased()) is \(ratio) times as fast"
        }
        return line
    }

    static func summary(_ results: [KernelBenchmark.Result]) -> String {
        let (taken, lost) = totals(results)
        return "\(results.count) cases, \(results.filter(\.isFlagged).count) flagged; "
            + "\(fixed(lost, 3)) s of \(fixed(taken, 3)) s could be saved in one step of each model"
    }

    static func json(_ results: [KernelBenchmark.Result]) throws -> String {
        let (taken, lost) = totals(results)
        let cases = results.map { result in
            var speeds = JSONObject()
            for timing in result.timings {
                speeds[timing.backend.rawValue.lowercased()] = .number(rounded(result.speed(timing) / 1e9))
            }
            return JSONValue.object([
                "case": .string(result.convolution.summary),
                "direction": .string(result.convolution.direction.rawValue),
                "precision": .string(result.convolution.dtype == .bfloat16 ? "bf16" : "fp32"),
                "count": .integer(result.count), "gflops": .object(speeds),
                "chosen": .string(result.pick.backend.rawValue.lowercased()),
                "implementation": .string(result.pick.implementation), "flagged": .bool(result.isFlagged),
            ])
        }
        return try JSONValue.object([
            "program": .string("disttrain"), "threads_per_rank": .integer(Processor.threads),
            "processor": .string(Processor.features), "cases": .array(cases),
            "flagged": .integer(results.filter(\.isFlagged).count),
            "seconds_per_step": .number(rounded(taken)), "seconds_lost_per_step": .number(rounded(lost)),
        ]).text()
    }

    /// Seconds of convolution in one step of each model, and the seconds that the fastest backends would have
    /// saved.
    private static func totals(_ results: [KernelBenchmark.Result]) -> (taken: Double, lost: Double) {
        let taken = results.reduce(0) { $0 + Double($1.count) * $1.pick.seconds }
        let best = results.reduce(0) { $0 + Double($1.count) * $1.best.seconds }
        return (taken, taken - best)
    }

    private static func rounded(_ value: Double) -> Double { (value * 1e4).rounded() / 1e4 }
    private static func column(_ text: String) -> String {
        String(repeating: " ", count: max(1, 10 - text.count)) + text
    }
    private static func padded(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(1, width - text.count))
    }
}
