import CKernels
import Communication
import Foundation
import Support
import TensorCore

/// What `bench allreduce` found: the network between the ranks as a model, and collectives beside what it says of them.
package struct NetworkReport: Codable, Equatable, Sendable {
    package struct Collective: Codable, Equatable, Sendable {
        /// "all-reduce", "reduce-scatter" or "all-gather".
        package var operation: String
        /// Of the whole vector.
        package var bytes: Int
        package var seconds: Double
        /// Bytes a second that each rank's link carries in a direction if a ring moves them: n·(p - 1)/p, twice that
        /// for an all-reduce, over the seconds.
        package var busBytesPerSecond: Double
        /// What α and β predict.
        package var modelSeconds: Double
    }

    package var program = "disttrain"
    package var hosts: Int
    package var ranks: Int
    package var threads: Int
    package var network: NetworkModel
    /// Bytes a second in each direction while the ranks compute.
    package var overlappedBytesPerSecond: Double
    package var collectives: [Collective]

    /// One line for programs.
    package var json: String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        encoder.keyEncodingStrategy = .convertToSnakeCase
        return (try? String(decoding: encoder.encode(self), as: UTF8.self)) ?? "null"
    }

    /// Reads what `json` wrote.
    package init(json: Data) throws {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        self = try decoder.decode(NetworkReport.self, from: json)
    }

    init(
        hosts: Int, ranks: Int, threads: Int, network: NetworkModel, overlappedBytesPerSecond: Double,
        collectives: [Collective]
    ) {
        self.hosts = hosts
        self.ranks = ranks
        self.threads = threads
        self.network = network
        self.overlappedBytesPerSecond = overlappedBytesPerSecond
        self.collectives = collectives
    }
}

/// Measures α, β and γ between the ranks of a job, and times collectives over sizes.
package struct NetworkBenchmark {
    /// Bytes of the largest collective; from 1 KiB up in steps of 8.
    package var largest: Int

    /// Lengths of messages whose difference is β's.
    private static let short = 2 << 20
    private static let long = 16 << 20

    package init(largest: Int) { self.largest = largest }

    /// Collective.
    ///
    /// - Throws: `PlanError` on one rank, which has nobody to talk to.
    package func run(_ communicator: any Communicator) throws -> NetworkReport {
        guard let link = LinkMeasurement(communicator, largest: Self.long) else {
            throw PlanError(
                "one rank has no other to exchange messages with: run it under mpirun, or as "
                    + "`disttrain launch -n 2 -- bench allreduce`")
        }
        defer { link.deallocate() }
        let hosts = Set(try communicator.allGather(communicator.hostName)).count
        let layout = RankLayout(hosts: hosts, perHost: max(1, communicator.size / hosts))

        // The first rank of the second host, where there is one.
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

    /// γ: a millisecond of sums between two calls of MPI, with and without messages under way.
    private func driving(_ link: LinkMeasurement, _ communicator: any Communicator) throws -> (
        perByte: Double, bytesPerSecond: Double
    ) {
        let values = [Float](repeating: 0.5, count: 1 << 16)  // 256 KiB: in a core's cache
        var sum = 0.0
        func sums(_ count: Int) { for _ in 0..<count { sum += ck_sum_of_squares(values.count, values) } }
        sums(10)
        let start = monotonicSeconds()
        sums(100)
        let perSum = try communicator.allReduceMax((monotonicSeconds() - start) / 100)
        let each = max(1, Int(1e-3 / perSum))
        // What other programs take of the processors is nobody's γ: the fastest of several.
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
        _ network: NetworkModel, _ layout: RankLayout, _ communicator: any Communicator
    ) throws -> [NetworkReport.Collective] {
        var results: [NetworkReport.Collective] = []
        var bytes = 1024
        while bytes <= largest {
            let count = bytes / 4
            var values = [Float](repeating: 1, count: count)
            let slices = FlatSlices(count: count, ranks: communicator.size).all
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

    /// The median of the calls that fit into half a second, 3 to 20, after one that warms up; the slowest rank's.
    private func time(_ communicator: any Communicator, _ body: () throws -> Void) throws -> Double {
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
