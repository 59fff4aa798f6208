import Communication
import Supervision
import TensorCore

/// Compares every collective with the result that one process computes for all ranks.
///
/// The values are small integers, whose floating-point sums are exact in any order, so results are compared
/// for equality.
struct CommunicationCheck {
    private let communicator: Communicator
    private var rank: Int { communicator.rank }
    private var size: Int { communicator.size }

    /// Empty, one element, odd, around the eager limit of the transport, and several fragments long.
    private static let lengths = [0, 1, 3, 1023, 4097, 100_003]

    init(_ communicator: Communicator) {
        self.communicator = communicator
    }

    func run() throws {
        try check(communicator.localSize <= size && communicator.localRank < communicator.localSize, "layout")
        try checkBroadcast()
        try checkAllReduce()
        try checkScatterAndGather()
        try checkMessages()
        try checkAgreement()
        for (sharding, overlaps) in [
            (Sharding.none, true), (.none, false), (.optimizer, true), (.optimizer, false),
        ] {
            for count in [1, 5, 8] {
                try checkBuckets(count: count, shuffled: false, sharding: sharding, overlaps: overlaps)
            }
            try checkBuckets(count: 7, shuffled: true, sharding: sharding, overlaps: overlaps)
        }
        for sharding in [Sharding.none, .optimizer] {
            for count in [1, 5, 8] {
                try checkBuckets(
                    count: count, shuffled: count == 5, sharding: sharding, overlaps: true,
                    reduceDType: .bfloat16)
            }
        }
        try communicator.barrier()
        if rank == 0 {
            print("communication on \(size) ranks: all checks passed, \(communicator.libraryVersion)")
        }
    }

    private func check(_ holds: Bool, _ what: String) throws {
        guard holds else { throw LaunchError("self-test: wrong result in \(what)", exitStatus: 1) }
    }

    /// The element at `index` on rank `rank`.
    private func value(_ index: Int, of rank: Int) -> Int { (index % 97) * (rank + 1) - 11 * rank }

    private func sum(_ index: Int) -> Int { (0..<size).reduce(0) { $0 + value(index, of: $1) } }

    private func checkBroadcast() throws {
        for root in 0..<size {
            for length in Self.lengths {
                var floats = (0..<length).map { Float(value($0, of: rank)) }
                try floats.withUnsafeMutableBytes { try communicator.broadcast($0, root: root) }
                try check(floats == (0..<length).map { Float(value($0, of: root)) }, "broadcast of \(length)")
            }
            let bytes = try communicator.broadcast([UInt8](repeating: UInt8(rank), count: rank), root: root)
            try check(bytes == [UInt8](repeating: UInt8(root), count: root), "broadcast of bytes")
            let text = try communicator.broadcast("größe \(rank)", root: root)
            try check(text == "größe \(root)", "broadcast of text")
            let table = ["rank": Double(rank), "infinity": .infinity]
            let sent = try communicator.broadcast(table, root: root)
            try check(sent == ["rank": Double(root), "infinity": .infinity], "broadcast of a value")
        }
    }

    private func checkAllReduce() throws {
        for length in Self.lengths {
            var floats = (0..<length).map { Float(value($0, of: rank)) }
            try floats.withUnsafeMutableBufferPointer { try communicator.allReduceSum($0) }
            try check(floats == (0..<length).map { Float(sum($0)) }, "all-reduce of \(length) floats")

            floats = (0..<length).map { Float(value($0, of: rank) * size) }
            try floats.withUnsafeMutableBufferPointer { try communicator.allReduceMean($0) }
            let tolerance = Float(1e-4)
            let isMean = floats.indices.allSatisfy {
                abs(floats[$0] - Float(sum($0))) <= tolerance * max(1, abs(Float(sum($0))))
            }
            try check(isMean, "mean of \(length) floats")

            var doubles = (0..<length).map { Double(value($0, of: rank)) }
            try communicator.allReduceSum(&doubles)
            try check(doubles == (0..<length).map { Double(sum($0)) }, "sum of \(length) doubles")
            doubles = (0..<length).map { Double(value($0, of: rank)) }
            try communicator.allReduceMax(&doubles)
            let maxima = (0..<length).map { index in
                (0..<size).map { value(index, of: $0) }.max().map(Double.init) ?? .nan
            }
            try check(doubles == maxima, "maximum of \(length) doubles")
            doubles = (0..<length).map { Double(-value($0, of: rank)) }
            try communicator.allReduceMin(&doubles)
            try check(doubles == maxima.map { -$0 }, "minimum of \(length) doubles")
        }
        try check(try communicator.allReduceSum(1 << 40) == size << 40, "sum of an integer")
        try check(try communicator.allReduceMax(rank) == size - 1, "maximum of an integer")
        try check(try communicator.allReduceMin(-rank) == 1 - size, "minimum of an integer")
        try check(try communicator.allReduceSum(0.5) == 0.5 * Double(size), "sum of a number")

        // Sums that are rounded must be bitwise identical on all ranks, otherwise replicas diverge.
        var rounded = (0..<10_007).map { Float($0 + rank).squareRoot() }
        try rounded.withUnsafeMutableBufferPointer { try communicator.allReduceSum($0) }
        let everyone = try communicator.allGather(rounded.map(\.bitPattern))
        try check(everyone.allSatisfy { $0 == everyone[0] }, "the bits of a rounded sum")
    }

    private func checkScatterAndGather() throws {
        for length in Self.lengths {
            // Uneven slices; with several ranks, that of the last rank is empty.
            let counts = (0..<size).map { size > 1 && $0 == size - 1 ? 0 : length + $0 }
            let starts = counts.indices.map { counts[..<$0].reduce(0, +) }
            let total = counts.reduce(0, +)
            let values = (0..<total).map { Float(value($0, of: rank)) }
            var slice = [Float](repeating: .nan, count: counts[rank])
            try values.withUnsafeBufferPointer { values in
                try slice.withUnsafeMutableBufferPointer {
                    try communicator.reduceScatterSum(values, counts: counts, into: $0)
                }
            }
            let expected = (0..<counts[rank]).map { Float(sum(starts[rank] + $0)) }
            try check(slice == expected, "reduce-scatter of \(total)")

            var all = [Float](repeating: .nan, count: total)
            all.replaceSubrange(starts[rank]..<starts[rank] + counts[rank], with: slice)
            let parts = counts.indices.map { 4 * starts[$0]..<4 * (starts[$0] + counts[$0]) }
            try all.withUnsafeMutableBytes {
                try communicator.allGather(inPlace: $0, parts: parts, elementSize: 4)
            }
            try check(all == (0..<total).map { Float(sum($0)) }, "all-gather in place of \(total)")

            let bytes = [UInt8](repeating: UInt8(rank), count: length * rank)
            let everyone = (0..<size).map { [UInt8](repeating: UInt8($0), count: length * $0) }
            try check(try communicator.allGather(bytes) == everyone, "all-gather of uneven lengths")
            for root in 0..<size {
                let gathered = try communicator.gather(bytes, root: root)
                try check(gathered == (rank == root ? everyone : nil), "gather on rank \(root)")
            }
        }
        let names = try communicator.allGather("rank \(rank)")
        try check(names == (0..<size).map { "rank \($0)" }, "all-gather of text")
        try check(
            try communicator.allGather(rank * rank) == (0..<size).map { $0 * $0 }, "all-gather of values")
    }

    /// Messages around the ring; rank 0 sends first, the other ranks receive first.
    private func checkMessages() throws {
        guard size > 1 else { return }
        let next = (rank + 1) % size
        let previous = (rank + size - 1) % size
        for length in Self.lengths {
            let own = (0..<length).map { Int64(value($0, of: rank)) }
            var received = [Int64](repeating: -1, count: length)
            func send() throws {
                try own.withUnsafeBytes { try communicator.send($0, to: next, tag: length) }
            }
            if rank > 0 { try receive() } else { try send() }
            if rank > 0 { try send() } else { try receive() }
            try check(received == (0..<length).map { Int64(value($0, of: previous)) }, "message of \(length)")
            func receive() throws {
                try received.withUnsafeMutableBytes {
                    try communicator.receive($0, from: previous, tag: length)
                }
            }
        }
    }

    private func checkAgreement() throws {
        try check(try communicator.allAgree(true), "agreement of all")
        try check(try !communicator.allAgree(rank != size - 1), "disagreement of one")
        try check(try communicator.anyAgree(rank == size - 1), "one among all")
        try check(try !communicator.anyAgree(false), "none among all")
        try check(try communicator.allEqual(.max - 5), "equal numbers")
        try check(try communicator.allEqual(UInt64(rank)) == (size == 1), "unequal numbers")
        try check(try communicator.collectively("nothing") { rank } == rank, "common success")
        let received = try communicator.fromRoot("a list", root: size - 1) { ["from", "\(rank)"] }
        try check(received == ["from", "\(size - 1)"], "a value from one rank")

        // Every rank throws an error, the failing rank its own, and all ranks can continue together.
        for failing in 0..<size {
            do {
                try communicator.collectively("a trial") {
                    if rank >= failing { throw LaunchError("fault \(rank)", exitStatus: 3) }
                }
                try check(false, "a failure that was not thrown")
            } catch let error as RemoteFailure {
                try check(rank < failing, "a remote failure on a failing rank")
                try check(
                    error.message == "rank \(failing): fault \(failing)", "the message of a remote failure")
                try check(error.exitStatus == 3, "the exit code of a remote failure")
            } catch let error as LaunchError where error.message.hasPrefix("fault") {
                try check(rank >= failing && error.message == "fault \(rank)", "a rank's own failure")
            }
        }
    }

    /// Compares several steps of bucketed reduction with the plain sum.
    private func checkBuckets(
        count: Int, shuffled: Bool, sharding: Sharding, overlaps: Bool, reduceDType: DType = .float32
    ) throws {
        let length = 50_021
        let gradients = UnsafeMutablePointer<Float>.allocate(capacity: length)
        gradients.initialize(repeating: 0, count: length)
        defer { gradients.deallocate() }
        // From the end to the start, as in the backward pass. One of several buckets is empty.
        let width = length / count
        let buckets = (0..<count).map { index in
            let end = length - index * width
            if index == 2 { return end..<end }
            return index == count - 1 ? 0..<end : end - (index == 1 ? 2 : 1) * width..<end
        }
        let slices = ShardLayout(count: length, ranks: size)
        let reducer = BucketReducer(
            communicator: communicator, gradients: gradients, buckets: buckets, slices: slices,
            sharding: sharding, reduceDType: reduceDType, overlaps: overlaps)
        let summed = sharding == .none ? 0..<length : slices[rank]
        for step in 0..<3 {
            for index in 0..<length { gradients[index] = Float(value(index + step, of: rank)) }
            for bucket in buckets.dropLast() { for index in bucket { gradients[index] = 0 } }
            var order = Array(0..<count)
            if shuffled { order.swapAt(step, (rank + 3) % count) }
            // In the last step one bucket is never marked ready, like parameters without gradients.
            for bucket in order where step < 2 || bucket != count - 1 {
                // Write the gradients as late as the backward pass does: a reduction that starts too early
                // sums zeros.
                for index in buckets[bucket] { gradients[index] = Float(value(index + step, of: rank)) }
                reducer.bucketReady(bucket)
                reducer.progress()
            }
            let (wait, busy) = try reducer.finish()
            try check(wait >= 0 && busy >= wait, "times of reduction")
            let isRight = summed.allSatisfy { index in
                abs(gradients[index] - Float(sum(index + step)))
                    <= tolerance(index + step, sharding, reduceDType)
            }
            try check(isRight, "\(count) buckets of \(reduceDType) at step \(step)")
        }
    }

    /// In bf16 each contribution has a rounding error of up to half a unit in the last place, a relative
    /// error of 2⁻⁸. Without sharding, the sum that is sent to all ranks is rounded once more.
    private func tolerance(_ index: Int, _ sharding: Sharding, _ reduceDType: DType) -> Float {
        guard reduceDType == .bfloat16, size > 1 else { return 0 }
        let contributions = (0..<size).reduce(0) { $0 + abs(value(index, of: $1)) }
        let sums = sharding == .none ? 2 * contributions : contributions
        return Float(sums) / 256
    }
}
