import Foundation
import Records
import Support

extension StepMetrics {
    /// The steps in ascending order. If a step was logged twice, the later line counts.
    static func all(in records: [JSONObject]) -> [StepMetrics] {
        var steps: [StepMetrics] = []
        for record in records {
            guard let step = StepMetrics(record) else { continue }
            while let last = steps.last, last.step >= step.step { steps.removeLast() }
            steps.append(step)
        }
        return steps
    }
}

extension [StepMetrics] {
    /// The finite values over the steps, as points of a curve.
    func points(_ value: (StepMetrics) -> Double) -> [(x: Double, y: Double)] {
        map { (Double($0.step), value($0)) }.filter(\.1.isFinite)
    }

    /// The mean of a value over the last tenth of the steps up to `step`.
    func mean(upTo step: Int, _ value: (StepMetrics) -> Double) -> Double? {
        let before = prefix { $0.step <= step }
        guard let nearest = before.last else { return nil }
        let values = before.reversed().prefix {
            $0.step == nearest.step || Double($0.step) > 0.9 * Double(step)
        }
        .map(value).filter(\.isFinite)
        return values.isEmpty ? nil : values.reduce(0, +) / Double(values.count)
    }

    /// Steps for the rows of a table: 1, 5, 15, 50, 150, 500, 1,000, 5,000, 15,000 … and the last, at most
    /// `count`.
    func milestones(_ count: Int = 7) -> [Int] {
        guard let first = first?.step, let last = last?.step else { return [] }
        var marks: [Int] = []
        var thousand = 1
        while thousand <= last {
            for mark in [1, 5, 15, 50, 150, 500] {
                let (step, overflow) = thousand.multipliedReportingOverflow(by: mark)
                // Skip steps close to the last one, whose row would be redundant.
                if !overflow, step >= first, Double(step) < 0.9 * Double(last) { marks.append(step) }
            }
            let (next, overflow) = thousand.multipliedReportingOverflow(by: 1000)
            if overflow { break }
            thousand = next
        }
        return marks.suffix(count - 1) + [last]
    }
}

/// One start of a run: from its line in metrics.jsonl to the last step before the next start.
package struct ReportedSession {
    /// nil for a start from scratch.
    let resumedStep: Int?
    package let lastStep: Int?
    let startedAt: Double?
    let endedAt: Double?
    let ranks: Int?
    let threads: Int?
    let hosts: [String]
    let precision: String?
    let processor: String?
    let programVersion: String?
    /// Seconds of each kind of work, summed over all steps.
    let work: [(kind: String, seconds: Double)]

    var seconds: Double {
        guard let startedAt, let endedAt else { return work.map(\.seconds).reduce(0, +) }
        return max(0, endedAt - startedAt)
    }

    static func all(in records: [JSONObject]) -> [ReportedSession] {
        var groups: [(head: JSONObject, steps: [StepMetrics])] = []
        for record in records {
            switch record["kind"]?.stringValue {
            case "run", "resume": groups.append((record, []))
            case "step":
                guard let step = StepMetrics(record) else { continue }
                if groups.isEmpty { groups.append((JSONObject(), [])) }
                groups[groups.count - 1].steps.append(step)
            default: break
            }
        }
        return groups.map { ReportedSession($0.head, $0.steps) }
    }

    private init(_ head: JSONObject, _ steps: [StepMetrics]) {
        resumedStep = head["kind"]?.stringValue == "resume" ? head["step"]?.intValue : nil
        lastStep = steps.last?.step
        startedAt = head["time"]?.doubleValue ?? steps.first?.time.finite
        endedAt = steps.last?.time.finite
        ranks = head["ranks"]?.intValue
        threads = head["threads"]?.intValue
        hosts = head["hosts"]?.arrayValue?.compactMap(\.stringValue) ?? []
        precision = head["precision"]?.stringValue
        processor = head["processor"]?.stringValue
        programVersion = head["program_version"]?.stringValue
        work = Self.work(of: steps, from: resumedStep ?? 0, startedAt)
    }

    /// The time by kind of work: the kinds in the records, "update" for the rest of each step, and "between"
    /// for the time between steps (samples, checkpoints, startup).
    private static func work(
        of steps: [StepMetrics], from first: Int, _ startedAt: Double?
    ) -> [(kind: String, seconds: Double)] {
        var sums: [(kind: String, seconds: Double)] = []
        func add(_ kind: String, _ seconds: Double) {
            if let index = sums.firstIndex(where: { $0.kind == kind }) {
                sums[index].seconds += seconds
            } else {
                sums.append((kind, seconds))
            }
        }
        var (before, moment) = (first, startedAt)
        for step in steps {
            let count = Double(step.step - before)
            defer { (before, moment) = (step.step, step.time.finite ?? moment) }
            let total = step.totalSeconds
            guard count > 0, total > 0 else { continue }
            let parts = step.secondsByKind.filter(\.value.isFinite)
            for part in parts { add(part.kind, part.value * count) }
            // Each phase has the time of its slowest rank, so their sum may exceed the step time.
            let known = parts.map(\.value).reduce(0, +)
            add("update", max(0, total - known) * count)
            if let moment, let time = step.time.finite {
                add("between", max(0, time - moment - total * count))
            }
        }
        return sums.filter { $0.seconds.isFinite && $0.seconds > 0 }
    }
}

extension Double {
    /// nil for NaN and infinities.
    var finite: Double? { isFinite ? self : nil }
}
