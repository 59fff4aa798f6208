import Foundation
import Records
import Support
import Testing
import TestSupport

private let description = RunDescription(
    name: "tiny", seed: 3, programVersion: "0.1.0", hosts: ["a", "b"], ranks: 4, threads: 2,
    precision: "fp32",
    processor: "AVX2", kernels: "oneDNN", configurationHash: "00ff", flopsPerImage: 6.5e9)

private func metrics(_ step: Int, loss: Double = 0.5) -> StepMetrics {
    StepMetrics(
        step: step, loss: loss, learningRate: 2e-4, gradientNorm: 1.25, imagesPerSecond: 80,
        dataSeconds: 0.01,
        computeSeconds: 0.5, communicationSeconds: 0.1, totalSeconds: 0.7, epoch: 0.25,
        samplesSeen: step * 64,
        parts: [("kl", 0.125)])
}

/// Collects the problems that a log reports.
private final class Problems {
    var lines: [String] = []
}

@Suite struct RecordsMetricsTests {
    private func open(_ path: String, resumedStep: Int? = nil, _ problems: Problems = Problems()) throws
        -> MetricsLog
    {
        try MetricsLog(
            path: path, run: description, resumedStep: resumedStep, onProblem: { problems.lines.append($0) },
            clock: { 1234.5678 })
    }

    @Test func linesHaveTheDocumentedKeys() throws {
        let scratch = try ScratchFolder()
        let path = scratch.file("metrics.jsonl")
        try open(path).append(metrics(50))
        let lines = try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n")
        #expect(lines.count == 2)
        let run = try JSONValue(parsing: String(lines[0]))
        #expect(
            run.objectValue?.keys == [
                "kind", "name", "seed", "program_version", "hosts", "ranks", "threads", "precision",
                "processor",
                "kernels", "config_hash", "flop_per_image", "time",
            ])
        #expect(run["kind"] == "run")
        #expect(run["hosts"] == ["a", "b"])
        let step = try JSONValue(parsing: String(lines[1]))
        #expect(
            step.objectValue?.keys == [
                "kind", "step", "loss", "lr", "grad_norm", "images_per_second", "seconds", "epoch",
                "samples_seen",
                "loss_parts", "time",
            ])
        #expect(step["seconds"] == ["data": 0.01, "compute": 0.5, "communication": 0.1, "total": 0.7])
        #expect(step["samples_seen"] == 3200)
        #expect(step["time"] == 1234.568)
    }

    @Test func historyGivesSeries() throws {
        let scratch = try ScratchFolder()
        let path = scratch.file("metrics.jsonl")
        let log = try open(path)
        for step in 1...3 { log.append(metrics(step * 10, loss: 1 / Double(step))) }
        log.append(metrics(40, loss: .nan))
        log.append(kind: "evaluation", step: 40, ["fid": 12.5])
        let history = try MetricsHistory(contentsOf: path)
        #expect(history.run?["name"] == "tiny")
        #expect(history.series("loss").map(\.step) == [10, 20, 30])
        #expect(history.series("loss").map(\.value) == [1, 0.5, 1.0 / 3])
        #expect(history.series("seconds.total").map(\.value) == [0.7, 0.7, 0.7, 0.7])
        #expect(history.series("loss_parts.kl").count == 4)
        #expect(history.series("fid", kind: "evaluation").map(\.value) == [12.5])
        #expect(throws: MetricsError.self) { try MetricsHistory(contentsOf: scratch.file("none")) }
    }

    @Test(arguments: [
        "", "{\"kind\":\"step\",\"step\":30,\"lo", "{\"kind\":\"step\",\"step\":20,\"loss\":1}",
        "\u{0}\u{0}\u{0}\n",
        "{\"kind\":\"st\n",
        // The state after a power failure: space was allocated for lines that were never written.
        String(repeating: "\u{0}", count: 4096),
        "{\"kind\":\"step\",\"step\":20,\"lo" + String(repeating: "\u{0}", count: 700),
        "\u{0}\u{0}{\"kind\":\"step\",\"step\":30,\"loss\":1}\n",
    ])
    func isCutBackToTheResumedStep(torn: String) throws {
        let scratch = try ScratchFolder()
        let path = scratch.file("metrics.jsonl")
        do {
            let log = try open(path)
            for step in 1...2 { log.append(metrics(step * 10)) }
        }
        var kept = try Data(contentsOf: URL(fileURLWithPath: path))
        let whole = kept
        kept.append(Data(torn.utf8))
        try kept.write(to: URL(fileURLWithPath: path))

        let log = try open(path, resumedStep: 20)
        log.append(metrics(30))
        let data = try Data(contentsOf: URL(fileURLWithPath: path))
        #expect(data.prefix(whole.count) == whole)
        let history = try MetricsHistory(contentsOf: path)
        #expect(history.unreadableLines == 0)
        #expect(history.records.map { $0["kind"]?.stringValue } == ["run", "step", "step", "resume", "step"])
        #expect(history.series("loss").map(\.step) == [10, 20, 30])

        // Resume from an earlier step: the first resume is part of the discarded history.
        _ = try open(path, resumedStep: 10)
        let earlier = try MetricsHistory(contentsOf: path)
        #expect(earlier.records.map { $0["kind"]?.stringValue } == ["run", "step", "resume"])
        #expect(earlier.records.last?["ranks"] == 4)
    }

    /// The clock is set back between two starts and during them: only the steps determine which lines are
    /// later.
    @Test func timesAreOfNoMatter() throws {
        let scratch = try ScratchFolder()
        let path = scratch.file("metrics.jsonl")
        for (first, times) in [(0, [900.0, 800, 850]), (20, [100, 50, 1000])] {
            var clock = times.makeIterator()
            let log = try MetricsLog(
                path: path, run: description, resumedStep: first == 0 ? nil : first, onProblem: { _ in },
                clock: { clock.next() ?? 0 })
            for step in 1...3 { log.append(metrics(first + step * 10)) }
            log.synchronize()
        }
        let history = try MetricsHistory(contentsOf: path)
        #expect(history.series("loss").map(\.step) == [10, 20, 30, 40, 50])
        #expect(history.series("time").map(\.value) == [800, 850, 50, 1000, 0])
    }

    @Test func aTornLineInsideIsPassedOver() throws {
        let scratch = try ScratchFolder()
        let path = scratch.file("metrics.jsonl")
        try open(path).append(metrics(10))
        var data = try Data(contentsOf: URL(fileURLWithPath: path))
        data.append(Data("{\"kind\":\"step\",\n{\"kind\":\"step\",\"step\":20,\"loss\":1}\n".utf8))
        try data.write(to: URL(fileURLWithPath: path))
        let history = try MetricsHistory(contentsOf: path)
        #expect(history.unreadableLines == 1)
        #expect(history.series("loss").map(\.step) == [10, 20])
        _ = try open(path, resumedStep: 20)
        #expect(try MetricsHistory(contentsOf: path).series("loss").map(\.step) == [10, 20])
    }

    @Test func aFreshStartWritesAnew() throws {
        let scratch = try ScratchFolder()
        let path = scratch.file("metrics.jsonl")
        for _ in 0..<2 { try open(path).append(metrics(10)) }
        #expect(try MetricsHistory(contentsOf: path).records.count == 2)
        // Resume from another run's checkpoint, into a folder without metrics.
        _ = try open(scratch.file("new.jsonl"), resumedStep: 30)
        let records = try MetricsHistory(contentsOf: scratch.file("new.jsonl")).records
        #expect(records.map { $0["kind"]?.stringValue } == ["run", "resume"])
    }

    @Test func aFullDiskIsReportedOnceAndLosesNothing() async {
        // In a separate process with a file size limit.
        await #expect(processExitsWith: .success) {
            let scratch = try ScratchFolder()
            let path = scratch.file("metrics.jsonl")
            let problems = Problems()
            let log = try MetricsLog(
                path: path, run: description, onProblem: { problems.lines.append($0) }, clock: { 1 })
            log.append(metrics(10))
            let size = try Data(contentsOf: URL(fileURLWithPath: path)).count

            signal(SIGXFSZ, SIG_IGN)
            setFileSizeLimit(rlim_t(size + 20))
            log.append(metrics(20))
            log.append(metrics(30))
            #expect(problems.lines.count == 1)
            #expect(
                problems.lines.first?.hasSuffix(
                    "lines cannot be written and are kept in memory, training continues: File too large")
                    == true)
            #expect(throws: FileError.self) { try log.commit() }
            #expect(try Data(contentsOf: URL(fileURLWithPath: path)).count == size)

            setFileSizeLimit(rlim_t(1 << 30))
            log.append(metrics(40))
            #expect(problems.lines.last?.hasSuffix("can be written again; nothing was lost") == true)
            try log.commit()
            #expect(log.lostLines == 0)
            let history = try MetricsHistory(contentsOf: path)
            #expect(history.unreadableLines == 0)
            #expect(history.series("loss").map(\.step) == [10, 20, 30, 40])
        }
    }
}

private func setFileSizeLimit(_ bytes: rlim_t) {
    var limit = rlimit()
    getrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limit)
    limit.rlim_cur = bytes
    setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limit)
}
