import TensorCore

/// The store's elements in the order in which the forward pass reads them.
package enum ForwardOrder {
    /// Limit on the elements of a range. Open MPI keeps three fragments of 1 MiB of a message in flight, so
    /// with longer messages it would serve them one after another.
    private static let longest = 1 << 20

    /// Ranges that cover the store, first declared parameters first. Each has at most about a 64th of the
    /// elements.
    package static func ranges(of store: ParameterStore) -> [Range<Int>] {
        let elements = min(longest, max(1, store.count / 64))
        return GradientBuckets.ranges(of: store, elements: elements).reversed().flatMap { range in
            stride(from: range.lowerBound, to: range.upperBound, by: longest).map {
                $0..<min($0 + longest, range.upperBound)
            }
        }
    }

    /// For each instruction of the tape, the ranges whose values it is the first to read.
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
