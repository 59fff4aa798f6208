import FileFormats
import TensorCore

/// The division of the flat parameter store among ranks: one slice per rank, in rank order, of equal size to within
/// 16 elements, aligned to 64 bytes.
package struct ShardLayout: Sendable, Equatable {
    /// Number of elements of the store.
    package let count: Int
    package let ranks: Int

    package init(count: Int, ranks: Int) {
        precondition(count >= 0 && ranks > 0, "\(count) elements on \(ranks) ranks")
        (self.count, self.ranks) = (count, ranks)
    }

    /// The elements of a rank; empty if there are more ranks than 64-byte lines.
    package subscript(rank: Int) -> Range<Int> {
        let lines = (count + 15) / 16
        return min(count, lines * rank / ranks * 16)..<min(count, lines * (rank + 1) / ranks * 16)
    }

    /// All slices, in rank order.
    package var all: [Range<Int>] { (0..<ranks).map { self[$0] } }
}

/// The state that is sharded over the ranks.
package enum Sharding: String, ConfigChoice {
    /// No sharding: each rank holds all state.
    case none
    /// Each rank owns a shard of optimizer state, master weights and averages (Rajbhandari et al., "ZeRO:
    /// Memory Optimizations Toward Training Trillion Parameter Models", 2020, stage 1).
    case optimizer
}

/// Divides the flat gradient buffer into buckets for reduction.
package enum GradientBuckets {
    /// 25 MB in fp32 elements, as in PyTorch's DDP: large enough for full bandwidth, small enough to overlap.
    package static let elements = 25 * 1024 * 1024 / 4

    /// Ranges that cover the store, last declared parameters first, the order in which the backward pass
    /// completes them.
    ///
    /// - Parameter elements: size at which a range is closed. Parameters are not split, and a range contains
    ///   only adjacent parameters.
    package static func ranges(of store: ParameterStore, elements: Int = elements) -> [Range<Int>] {
        var ranges: [Range<Int>] = []
        for parameter in store.parameters.reversed() {
            let (start, end) = (parameter.offset, parameter.offset + parameter.paddedCount)
            if let last = ranges.last, last.lowerBound == end, last.count < elements {
                ranges[ranges.count - 1] = start..<last.upperBound
            } else {
                ranges.append(start..<end)
            }
        }
        return ranges
    }

    /// For each instruction of the tape, the buckets that are complete after it, if all previous buckets are
    /// complete as well. Buckets are listed in order, because all ranks must start them in the same order.
    package static func starts(_ buckets: [Range<Int>], store: ParameterStore, tape: Tape) -> [[Int]] {
        var ready = Array(repeating: 0, count: buckets.count)
        for parameter in store.parameters {
            guard let instruction = tape.readyAfter(parameter) else { continue }
            let bucket = buckets.firstIndex { $0.contains(parameter.offset) }!
            ready[bucket] = max(ready[bucket], instruction)
        }
        var starts = Array(repeating: [Int](), count: tape.instructionCount)
        var latest = 0
        for (bucket, instruction) in ready.enumerated() {
            latest = max(latest, instruction)
            starts[latest].append(bucket)
        }
        return starts
    }
}

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
