import Records
import TensorCore

/// Times the phases of a training step and publishes the current phase of this rank, which keeps both out of the
/// code of the step.
final class StepClock {
    /// Receives each time span when it ends, for traces.
    var observer: ((TraceSpan) -> Void)?

    private let activity: RankActivity
    private var start = ContinuousClock.now
    private var seconds: [RankActivity.Phase: Double] = [:]

    init(_ activity: RankActivity) { self.activity = activity }

    /// Names in traces.
    private static let names: [RankActivity.Phase: String] = [
        .data: "data", .gather: "waiting for weights", .reduce: "waiting for gradients", .agree: "agreement",
        .update: "optimizer",
    ]

    /// Call at the start of a step.
    func begin() {
        start = .now
        seconds.removeAll(keepingCapacity: true)
    }

    /// Runs `body` as a phase of the step.
    ///
    /// - Parameter step: the number of the step, given with its first phase.
    func measure<R, E: Error>(
        _ phase: RankActivity.Phase, step: Int? = nil, _ body: () throws(E) -> R
    ) throws(E) -> R {
        activity.enter(phase, step: step)
        let begin = ContinuousClock.now
        defer {
            let end = ContinuousClock.now
            seconds[phase, default: 0] += (end - begin).seconds
            if let observer, let name = Self.names[phase] {
                observer(TraceSpan(name: name, category: name, start: begin, end: end))
            }
        }
        return try body()
    }

    /// Runs `body` as a phase within another one.
    func interrupt(_ outer: RankActivity.Phase, by inner: RankActivity.Phase, _ body: () -> Void) {
        measure(inner, body)
        activity.enter(outer)
    }

    /// Call at the end of a step.
    ///
    /// - Parameters:
    ///   - gradients: seconds spent waiting for gradients, and seconds inside MPI for them.
    ///   - weights: the same for weights.
    func finish(
        gradients: (wait: Double, busy: Double), weights: (wait: Double, busy: Double)
    ) -> StepTimes {
        let total = (ContinuousClock.now - start).seconds
        let data = seconds[.data] ?? 0
        let waited = gradients.wait + weights.wait
        activity.finishStep(seconds: total, own: total - waited)
        return StepTimes(
            total: total, data: data, compute: total - data - waited, communication: waited,
            gather: weights.wait, messages: gradients.busy + weights.busy,
            optimizer: (seconds[.agree] ?? 0) + (seconds[.update] ?? 0))
    }
}

/// A unit of work with its start and end time.
package struct TraceSpan: Sendable {
    package var name: String
    package var category: String
    package var start: ContinuousClock.Instant
    package var end: ContinuousClock.Instant
    /// Floating-point operations; 0 if they are not counted.
    package var flops = 0

    init(name: String, category: String, start: ContinuousClock.Instant, end: ContinuousClock.Instant) {
        (self.name, self.category, self.start, self.end) = (name, category, start, end)
    }

    init(_ instruction: InstructionSpan) {
        self.init(
            name: instruction.name, category: instruction.work.rawValue, start: instruction.start,
            end: instruction.end)
        flops = instruction.flops
    }
}
