import ArgumentParser
import Foundation
import Planning
import TensorCore

struct BenchAllReduceCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "allreduce",
        abstract: "Benchmark messages and collectives between ranks.",
        discussion: """
            Run one rank per host, on the hosts of a job:

              mpirun -np 8 --hostfile hosts --map-by node disttrain bench allreduce --json > network.json
              disttrain plan --config configs/celeba_hq_256.yaml --hosts 8 --network network.json

            α is the one-way latency of an 8-byte message; β is the transfer time per byte while every rank sends to \
            the next rank and receives from the previous one; γ is the processor time per byte while the ranks \
            compute. The time of each collective is printed next to the prediction for a ring or tree from α and β. \
            Bus bandwidth is the throughput of each link in one direction.
            """)

    @Option(help: "Size of the largest collective in MiB; the smallest is 1 KiB.")
    var largest = 32
    @Option(help: "Threads per rank. Default: OMP_NUM_THREADS, or all cores.")
    var threads: Int?
    @Flag(help: "Print one line of JSON, for plan --network.")
    var json = false

    func validate() throws {
        guard (1...1024).contains(largest) else {
            throw ValidationError("--largest \(largest): expected 1 to 1024")
        }
        guard threads ?? 1 >= 1 else { throw ValidationError("--threads \(threads!): expected 1 or more") }
    }

    func run() throws {
        try onAllRanks { communicator in
            if let threads { Processor.setThreads(threads) }
            let report = try NetworkBenchmark(largest: largest << 20).run(communicator)
            if communicator.isRoot { print(json ? report.json : Self.table(report)) }
        }
    }

    private static func table(_ report: NetworkReport) -> String {
        let network = report.network
        var lines = [
            "\(report.ranks) ranks on \(report.hosts) host\(report.hosts == 1 ? " (shared memory)" : "s")",
            "α \(fixed(network.latencySeconds * 1e6, 1)) µs; β \(fixed(network.secondsPerByte * 1e9, 3)) ns/byte, "
                + "\(fixed(network.bitsPerSecond / 1e9, 3)) Gbit/s in each direction "
                + "(\(fixed(report.overlappedBytesPerSecond * 8e-9, 3)) while computing); γ "
                + "\(fixed(network.drivingSecondsPerByte * 1e9, 3)) ns of processor time per byte",
            TextTable.row(["", "size", "time, ms", "model, ms", "bus, GB/s"], columns),
        ]
        for each in report.collectives {
            lines.append(
                TextTable.row(
                    [
                        each.operation, size(each.bytes), fixed(each.seconds * 1e3, 3),
                        fixed(each.modelSeconds * 1e3, 3), fixed(each.busBytesPerSecond / 1e9, 3),
                    ], columns))
        }
        return lines.joined(separator: "\n")
    }

    private static let columns = [-16, 9, 12, 12, 12]

    private static func size(_ bytes: Int) -> String {
        bytes < 1 << 20 ? "\(bytes >> 10) KiB" : "\(bytes >> 20) MiB"
    }
}

/// Formats columns of plain text.
enum TextTable {
    /// - Parameter widths: the column widths; a negative width aligns the text on the left.
    static func row(_ cells: [String], _ widths: [Int]) -> String {
        zip(cells, widths).map { cell, width in
            let space = String(repeating: " ", count: max(0, abs(width) - cell.count))
            return width < 0 ? cell + space : space + cell
        }.joined()
    }
}
