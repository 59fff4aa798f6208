import Foundation
import Support
import TensorCore

/// The result of a benchmark over all ranks, as a table and as JSON.
package struct BenchmarkReport: Sendable {
    /// One kind of work.
    package struct Entry: Sendable {
        package var name: String
        /// Mean seconds per call on rank 0.
        package var seconds: Double
        /// FLOPs per call of all ranks; 0 if they are not counted.
        package var flops: Double

        package init(_ name: String, seconds: Double, flops: Double = 0) {
            (self.name, self.seconds, self.flops) = (name, seconds, flops)
        }
    }

    /// The unit that is timed: "step", "evaluation", "encode".
    package var call: String
    package var precision: String
    package var backend: String
    package var ranks: Int
    /// Threads per rank.
    package var threads: Int
    /// Images per rank.
    package var batch: Int
    /// Number of model parameters.
    package var parameters: Int
    /// Seconds of every timed call, on the slowest rank.
    package var seconds: [Double]
    /// FLOPs per call of all ranks, counted as direct convolution.
    package var flops: Double
    /// The maximum over all ranks.
    package var peakRSSMiB: Int
    package var ceilings: ArithmeticCeilings?
    package var entries: [Entry]

    /// The median seconds per call.
    package var medianSeconds: Double {
        let sorted = seconds.sorted()
        return (sorted[(sorted.count - 1) / 2] + sorted[sorted.count / 2]) / 2
    }
    package var imagesPerSecond: Double { Double(batch * ranks) / medianSeconds }
    package var flopsPerSecond: Double { flops / medianSeconds }
    /// Fraction of the throughput of direct convolution in the measured type.
    package var shareOfCeiling: Double? {
        ceilings.map { flopsPerSecond / $0.convolution(precision == "bf16" ? .bfloat16 : .float32) }
    }

    // MARK: JSON

    /// One line of JSON. The keys of the PyTorch benchmark come first.
    package var json: String {
        var object: JSONObject = [
            "program": .string("disttrain"), "precision": .string(precision), "ranks": .integer(ranks),
            "threads_per_rank": .integer(threads), "batch_per_rank": .integer(batch),
            "seconds_per_\(call)": Self.rounded(medianSeconds, 4),
            "images_per_second": Self.rounded(imagesPerSecond, 2), "peak_rss_mib": .integer(peakRSSMiB),
            "threads": .integer(threads), "batch": .integer(batch),
            "fastest_seconds": Self.rounded(seconds.min()!, 4),
            "slowest_seconds": Self.rounded(seconds.max()!, 4),
            "gflop_per_image": Self.rounded(flops / Double(batch * ranks) / 1e9, 2),
            "gflops": Self.rounded(flopsPerSecond / 1e9, 1), "backend": .string(backend),
            "processor": .string(Processor.features), "openblas_kernels": .string(Processor.openBLASKernels),
        ]
        if let ceilings, let shareOfCeiling {
            object["ceilings_gflops"] = .object([
                "matmul_fp32": Self.rounded(ceilings.matmulFP32 / 1e9, 1),
                "convolution_fp32": Self.rounded(ceilings.convolutionFP32 / 1e9, 1),
                "convolution_bf16": ceilings.convolutionBF16.map { Self.rounded($0 / 1e9, 1) } ?? .null,
            ])
            object["share_of_ceiling"] = Self.rounded(shareOfCeiling, 3)
        }
        var breakdown = JSONObject()
        for entry in entries {
            var values: JSONObject = ["seconds": Self.rounded(entry.seconds, 4)]
            if entry.flops > 0 { values["gflops"] = Self.rounded(entry.flops / entry.seconds / 1e9, 1) }
            breakdown[entry.name] = .object(values)
        }
        object["breakdown"] = .object(breakdown)
        return (try? JSONValue.object(object).text()) ?? "null"
    }

    private static func rounded(_ value: Double, _ decimals: Int) -> JSONValue {
        let scale = pow(10, Double(decimals))
        return .number((value * scale).rounded() / scale)
    }

    // MARK: Table

    package var table: String {
        func plural(_ count: Int, _ noun: String) -> String { "\(count) \(noun)\(count == 1 ? "" : "s")" }
        func digits(_ value: Double, _ decimals: Int, width: Int = 0) -> String {
            String(format: "%*.*f", width, decimals, value)
        }
        var lines = [
            "\(parameters) parameters, \(precision), \(plural(ranks, "rank")) × \(plural(threads, "thread")), "
                + "\(plural(batch, "image")) per rank",
            "processor \(Processor.features); \(backend); OpenBLAS \(Processor.openBLASKernels)",
            "\(digits(imagesPerSecond, 2)) images/s; one \(call) takes \(digits(medianSeconds, 3)) s "
                + "(\(digits(seconds.min()!, 3)) to \(digits(seconds.max()!, 3)) over \(seconds.count)); "
                + "\(peakRSSMiB) MiB peak per rank",
        ]
        if let ceilings, let shareOfCeiling {
            let bf16 = ceilings.convolutionBF16.map { ", \(digits($0 / 1e9, 0)) in bf16" } ?? ""
            lines.append(
                "\(digits(flopsPerSecond / 1e9, 0)) GFLOP/s of direct convolution, "
                    + "\(digits(100 * shareOfCeiling, 0)) % of its ceiling; ceilings: convolution "
                    + "\(digits(ceilings.convolutionFP32 / 1e9, 0)) in fp32\(bf16), "
                    + "matmul \(digits(ceilings.matmulFP32 / 1e9, 0)) in fp32")
        }
        let total = entries.reduce(0) { $0 + $1.seconds }
        for entry in entries {
            let share = digits(100 * entry.seconds / total, 1, width: 6)
            let speed =
                entry.flops > 0 ? "\(digits(entry.flops / entry.seconds / 1e9, 0, width: 8)) GFLOP/s" : ""
            lines.append(
                "  \(entry.name.padding(toLength: 30, withPad: " ", startingAt: 0))"
                    + "\(digits(entry.seconds, 3, width: 8)) s \(share) %\(speed)")
        }
        return lines.joined(separator: "\n")
    }
}

extension [WorkProfile] {
    /// The kernel times of one rank per call, with the FLOPs of all ranks.
    func entries(ofEach calls: Int, ranks: Int) -> [BenchmarkReport.Entry] {
        map {
            BenchmarkReport.Entry(
                $0.work.rawValue, seconds: $0.seconds / Double(calls),
                flops: $0.flops * Double(ranks) / Double(calls))
        }
    }

    /// FLOPs per call of all ranks.
    func flops(ofEach calls: Int, ranks: Int) -> Double {
        entries(ofEach: calls, ranks: ranks).reduce(0) { $0 + $1.flops }
    }
}

extension DType {
    /// The name in `--precision`.
    package var precision: String { self == .bfloat16 ? "bf16" : "fp32" }
}

/// Peak resident memory of this process, in MiB.
package func peakResidentMiB() -> Int {
    var usage = rusage()
    getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
    return usage.ru_maxrss / 1024
}
