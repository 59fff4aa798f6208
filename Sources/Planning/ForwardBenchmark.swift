import Communication
import TensorCore

/// Times forward passes; each rank runs its own. Used for sampling and for the first stage.
struct ForwardBenchmark {
    /// The name of one pass in the report.
    var call: String
    var dtype: DType
    var backend: Backend
    /// Images per rank.
    var batch: Int
    /// Number of timed passes, 1 or more, after one warm-up pass.
    var count: Int
    /// Number of model parameters.
    var parameters: Int

    /// Returns the report without ceilings. Collective.
    ///
    /// - Parameters:
    ///   - profile: returns the profile of the passes since its last call.
    ///   - pass: runs the model once.
    func run(
        _ communicator: any Communicator, profile: () -> [WorkProfile], _ pass: () throws -> Void
    ) throws -> BenchmarkReport {
        try pass()
        _ = profile()
        var seconds: [Double] = []
        for _ in 0..<count {
            try communicator.barrier()
            let start = ContinuousClock.now
            try pass()
            seconds.append((ContinuousClock.now - start).seconds)
        }
        let work = profile()
        // A call takes as long as the slowest rank.
        let own = seconds
        try communicator.allReduceMax(&seconds)

        let ranks = communicator.size
        var entries = work.entries(ofEach: count, ranks: ranks)
        let known = entries.reduce(0) { $0 + $1.seconds }
        entries.append(.init("rest", seconds: own.reduce(0, +) / Double(count) - known))
        return BenchmarkReport(
            call: call, precision: dtype.precision, backend: backend.summary, ranks: ranks,
            threads: Processor.threads, batch: batch, parameters: parameters, seconds: seconds,
            flops: work.flops(ofEach: count, ranks: ranks),
            peakRSSMiB: try communicator.allReduceMax(peakResidentMiB()), ceilings: nil,
            entries: entries.filter { $0.seconds >= 0.5e-4 })
    }
}
