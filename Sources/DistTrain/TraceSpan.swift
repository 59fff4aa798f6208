import TensorCore

/// A piece of work with its place in time.
package struct TraceSpan: Sendable {
    package var name: String
    package var category: String
    package var start: ContinuousClock.Instant
    package var end: ContinuousClock.Instant
    /// Floating-point operations; 0 where they are not counted.
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
