import Foundation

/// The only rank of a run without a launcher: every collective is the identity, and MPI is never initialized.
package final class SingleProcess: Communicator {
    package let rank = 0
    package let size = 1
    package let localRank = 0
    package let localSize = 1
    package let hostName: String
    package let libraryVersion = "no MPI: a single process"

    package init() {
        hostName = ProcessInfo.processInfo.hostName
    }

    package func barrier() {}

    package func broadcast(_ bytes: UnsafeMutableRawBufferPointer, root: Int) {
        precondition(root == 0, "rank \(root) does not exist in a single process")
    }

    package func allReduce(_ values: UnsafeMutableBufferPointer<Float>, _ reduction: Reduction) {}
    package func allReduce(_ values: UnsafeMutableBufferPointer<Double>, _ reduction: Reduction) {}
    package func allReduce(_ values: UnsafeMutableBufferPointer<Int64>, _ reduction: Reduction) {}

    package func startAllReduceSum(_ values: UnsafeMutableBufferPointer<Float>) -> PendingReduction {
        PendingReduction()
    }

    package func reduceScatterSum(
        _ values: UnsafeBufferPointer<Float>, counts: [Int], into slice: UnsafeMutableBufferPointer<Float>
    ) {
        precondition(counts == [values.count] && slice.count == values.count)
        _ = slice.update(fromContentsOf: values)
    }

    package func allGather(
        inPlace bytes: UnsafeMutableRawBufferPointer, parts: [Range<Int>], elementSize: Int
    ) {
        precondition(parts.count == 1, "\(parts.count) parts for one rank")
    }

    package func allGather(_ bytes: [UInt8]) -> [[UInt8]] { [bytes] }

    package func gather(_ bytes: [UInt8], root: Int) -> [[UInt8]]? {
        precondition(root == 0, "rank \(root) does not exist in a single process")
        return [bytes]
    }

    package func send(_ bytes: UnsafeRawBufferPointer, to destination: Int, tag: Int) {
        preconditionFailure("a single process has no rank \(destination) to send to")
    }

    package func receive(_ bytes: UnsafeMutableRawBufferPointer, from source: Int, tag: Int) {
        preconditionFailure("a single process has no rank \(source) to receive from")
    }

    package func meetsAllRanks(within seconds: Double) -> Bool { true }

    package func abort(_ code: Int32) -> Never {
        fflush(nil)
        _exit(code)
    }
}
