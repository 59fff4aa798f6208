import CKernels
import Communication
import Foundation
import Support
import TensorCore

/// The result of `bench allreduce`: a model of the network between the ranks, and measured collectives with
/// the model's predictions.
package struct NetworkReport: JSONLine, Equatable {
    package struct Collective: Codable, Equatable, Sendable {
        /// "all-reduce", "reduce-scatter" or "all-gather".
        package var operation: String
        /// Size of the whole vector.
        package var bytes: Int
        package var seconds: Double
        /// Throughput of each rank's link per direction in bytes/s, if a ring moves the data: n·(p - 1)/p
        /// bytes, or twice that for an all-reduce, divided by the seconds.
        package var busBytesPerSecond: Double
        /// The prediction from α and β.
        package var modelSeconds: Double
    }

    package var program = "disttrain"
    package var hosts: Int
    package var ranks: Int
    package var threads: Int
    package var network: NetworkModel
    /// Throughput per direction in bytes/s while the ranks compute.
    package var overlappedBytesPerSecond: Double
    package var collectives: [Collective]

    init(
        hosts: Int, ranks: Int, threads: Int, network: NetworkModel, overlappedBytesPerSecond: Double,
        collectives: [Collective]
    ) {
        (self.hosts, self.ranks, self.threads, self.network) = (hosts, ranks, threads, network)
        (self.overlappedBytesPerSecond, self.collectives) = (overlappedBytesPerSecond, collectives)
    }
}

/// What a command prints with --json: one line with sorted keys in snake case.
package protocol JSONLine: Codable, Sendable {}

extension JSONLine {
    package var json: String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        encoder.keyEncodingStrategy = .convertToSnakeCase
        return (try? String(decoding: encoder.encode(self), as: UTF8.self)) ?? "null"
    }

    /// Decodes the output of `json`.
    package init(json: Data) throws {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        self = try decoder.decode(Self.self, from: json)
    }
}

/// Measures α, β and γ between the ranks of a job, and times collectives of different sizes.
package struct NetworkBenchmark {
    /// Size of the largest collective in bytes; the sizes start at 1 KiB and grow by a factor of 8.
    package var largest: Int

    /// Message lengths in bytes; β is computed from the difference of their times.
    private static let short = 2 << 20
    private static let long = 16 << 20

    package init(largest: Int) { self.largest = largest }

    /// Runs the benchmark. Collective.
    ///
    /// - Throws: `PlanError` on a single rank, since there is no other rank to exchange messages with.
    package func run(_ communicator: Communicator) throws -> NetworkReport {
        guard let link = LinkMeasurement(communicator, largest: Self.long) else {
            throw PlanError(
                "a single rank cannot exchange messages: run it under mpirun, or as "
                    + "`disttrain launch -n 2 -- bench allreduce`")
        }
        defer { link.deallocate() }
        let hosts = Set(try communicator.allGather(communicator.hostName)).count
        let layout = RankLayout(hosts: hosts, perHost: max(1, communicator.size / hosts))

        // Use the first rank of the second host, if there is one.
        let latency = try link.pingPong(0, hosts > 1 ? layout.perHost : 1, bytes: 8, rounds: 50)
        let short = try link.exchange(bytes: Self.short, rounds: 3)
        let long = try link.exchange(bytes: Self.long, rounds: 3)
        let perByte = max(1e-12, (long - short) / Double(Self.long - Self.short))
        let driving = try driving(link, communicator)
        let network = NetworkModel(
            latencySeconds: latency, secondsPerByte: perByte, drivingSecondsPerByte: driving.perByte)
        return NetworkReport(
            hosts: hosts, ranks: communicator.size, threads: Processor.threads, network: network,
            overlappedBytesPerSecond: driving.bytesPerSecond,
            collectives: try collectives(
                network, hosts > 1 ? layout : RankLayout(hosts: communicator.size), communicator))
    }

    /// Measures γ: 1 ms of summation between two MPI calls, with and without messages in flight.
    private func driving(_ link: LinkMeasurement, _ communicator: Communicator) throws -> (
        perByte: Double, bytesPerSecond: Double
    ) {
        let values = [Float](repeating: 0.5, count: 1 << 16)  // 256 KiB, which fits into a core's cache
        var sum = 0.0
        func sums(_ count: Int) { for _ in 0..<count { sum += ck_sum_of_squares(values.count, values) } }
        sums(10)
        let start = monotonicSeconds()
        sums(100)
        let perSum = try communicator.allReduceMax((monotonicSeconds() - start) / 100)
        let each = max(1, Int(1e-3 / perSum))
        // Take the fastest run, to exclude interference from other processes.
        var alone = Double.infinity
        var fastest = (seconds: Double.infinity, bytes: 1.0)
        for _ in 0..<4 {
            alone = min(alone, try link.computing(calls: 200) { sums(each) })
            let timed = try link.exchangeWhileComputing(bytes: 1 << 20, inFlight: 4, calls: 200) {
                sums(each)
            }
            if timed.seconds < fastest.seconds { fastest = timed }
        }
        precondition(sum > 0)
        return (max(0, fastest.seconds - alone) / fastest.bytes, fastest.bytes / fastest.seconds)
    }

    private func collectives(
        _ network: NetworkModel, _ layout: RankLayout, _ communicator: Communicator
    ) throws -> [NetworkReport.Collective] {
        var results: [NetworkReport.Collective] = []
        var bytes = 1024
        while bytes <= largest {
            let count = bytes / 4
            var values = [Float](repeating: 1, count: count)
            let slices = ShardLayout(count: count, ranks: communicator.size).all
            var slice = [Float](repeating: 0, count: slices[communicator.rank].count)
            let size = Double(bytes)
            let moved = size * (1 - 1 / Double(communicator.size))
            func add(_ operation: String, _ moved: Double, _ model: Double, _ body: () throws -> Void) throws
            {
                let seconds = try time(communicator, body)
                results.append(
                    NetworkReport.Collective(
                        operation: operation, bytes: bytes, seconds: seconds,
                        busBytesPerSecond: moved / seconds, modelSeconds: model))
            }
            try add("all-reduce", 2 * moved, network.allReduce(bytes: size, layout)) {
                values.indices.forEach { values[$0] = 1 }
                try values.withUnsafeMutableBufferPointer { try communicator.allReduceSum($0) }
            }
            try add("reduce-scatter", moved, network.ringReduceScatter(bytes: size, layout)) {
                try values.withUnsafeBufferPointer { all in
                    try slice.withUnsafeMutableBufferPointer {
                        try communicator.reduceScatterSum(all, counts: slices.map(\.count), into: $0)
                    }
                }
            }
            try add("all-gather", moved, network.allGather(bytes: size, layout)) {
                try values.withUnsafeMutableBytes {
                    try communicator.allGather(
                        inPlace: $0, parts: slices.map { 4 * $0.lowerBound..<4 * $0.upperBound },
                        elementSize: 4)
                }
            }
            bytes *= 8
        }
        return results
    }

    /// The slowest rank's seconds: the median of the calls that fit into 0.5 s, 3 to 20, after a warm-up
    /// call.
    private func time(_ communicator: Communicator, _ body: () throws -> Void) throws -> Double {
        var seconds: [Double] = []
        var spent = 0.0
        while seconds.count < 4 || (spent < 0.5 && seconds.count < 20) {
            try communicator.barrier()
            let start = monotonicSeconds()
            try body()
            seconds.append(try communicator.allReduceMax(monotonicSeconds() - start))
            spent += seconds.last!
        }
        let timed = seconds.dropFirst().sorted()
        return timed[timed.count / 2]
    }
}
