import Communication
import TensorCore

/// Times forward passes, every rank its own: what sampling and the first stage are measured with.
struct ForwardBenchmark {
    /// What one pass is called in the report.
    var call: String
    var dtype: DType
    var backend: Backend
    /// Images a rank.
    var batch: Int
    /// Timed passes, 1 or more, after one that warms up.
    var count: Int
    /// Parameters of the model.
    var parameters: Int

    /// The report without ceilings. Collective.
    ///
    /// - Parameters:
    ///   - profile: takes the profile of the passes since it was last called.
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
        // A call of all ranks takes as long as the slowest.
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
