import TensorCore

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
