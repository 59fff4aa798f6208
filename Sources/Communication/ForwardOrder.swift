import TensorCore

/// The store's elements in the order in which the forward pass reads them.
package enum ForwardOrder {
    /// Elements of a range at the most: Open MPI has three parts of 1 MiB of a message on their way at once, and so
    /// takes messages that are no longer one after the other.
    private static let longest = 1 << 20

    /// Ranges that cover the store, first declared parameters first: each a 64th of it or less.
    package static func ranges(of store: ParameterStore) -> [Range<Int>] {
        let elements = min(longest, max(1, store.count / 64))
        return GradientBuckets.ranges(of: store, elements: elements).reversed().flatMap { range in
            stride(from: range.lowerBound, to: range.upperBound, by: longest).map {
                $0..<min($0 + longest, range.upperBound)
            }
        }
    }

    /// For every instruction of the tape, the ranges that it is the first to read values of.
    package static func uses(of ranges: [Range<Int>], store: ParameterStore, tape: Tape) -> [[Int]] {
        var first = ranges.map { _ in Int.max }
        for parameter in store.parameters {
            guard let instruction = tape.firstUse(of: parameter) else { continue }
            for (index, range) in ranges.enumerated() where range.overlaps(parameter.range) {
                first[index] = min(first[index], instruction)
            }
        }
        var uses = Array(repeating: [Int](), count: tape.instructionCount)
        for (index, instruction) in first.enumerated() where instruction < uses.count {
            uses[instruction].append(index)
        }
        return uses
    }
}
