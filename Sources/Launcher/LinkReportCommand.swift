import ArgumentParser
import Foundation
import Planning
import Supervision

/// The latency and throughput between two hosts.
struct LinkReport: Codable, Equatable {
    var first: String
    var second: String
    /// One-way latency of an 8-byte message.
    var latencySeconds: Double
    /// One-way throughput for the largest message.
    var bytesPerSecond: Double
}

/// The output of the ranks of `link-report`.
struct LinkReports: Codable, Equatable {
    var links: [LinkReport]
    /// Seconds for an all-reduce of `reducedBytes` over all hosts.
    var reduceSeconds: Double
    var reducedBytes: Int
}

/// `disttrain link-report`: the command that `doctor` runs under mpirun, with one rank per host.
struct LinkReportCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "link-report", abstract: "Measure the network between ranks, for doctor.",
        shouldDisplay: false)

    private static let rounds = 20
    private static let largest = 4 << 20
    private static let reduced = 25 << 20

    func run() throws {
        try onAllRanks { communicator in
            let hosts = try communicator.allGather(communicator.hostName)
            guard let link = LinkMeasurement(communicator, largest: Self.largest) else {
                throw ValidationError("link-report: found 1 rank, expected 2 or more")
            }
            defer { link.deallocate() }
            var links: [LinkReport] = []
            for first in 0..<communicator.size {
                for second in first + 1..<communicator.size {
                    let latency = try link.pingPong(first, second, bytes: 8, rounds: Self.rounds)
                    let whole = try link.pingPong(first, second, bytes: Self.largest, rounds: 4)
                    links.append(
                        LinkReport(
                            first: hosts[first], second: hosts[second], latencySeconds: latency,
                            bytesPerSecond: Double(Self.largest) / max(1e-9, whole - latency)))
                }
            }
            var values = [Float](repeating: 1, count: Self.reduced / 4)
            var seconds = Double.infinity
            for _ in 0..<3 {
                try communicator.barrier()
                let start = monotonicTime()
                try values.withUnsafeMutableBufferPointer { try communicator.allReduceSum($0) }
                seconds = min(seconds, monotonicTime() - start)
            }
            let report = LinkReports(
                links: links, reduceSeconds: try communicator.allReduceMax(seconds),
                reducedBytes: Self.reduced)
            if communicator.isRoot {
                print(String(decoding: try JSONEncoder().encode(report), as: UTF8.self))
            }
        }
    }
}
