import Foundation

/// The only rank of a run that no launcher started: every collective is the identity, and MPI is never
/// initialised.
public final class SingleProcess: Communicator {
    public let rank = 0
    public let size = 1
    public let localRank = 0
    public let localSize = 1
    public let hostName: String
    public let libraryVersion = "no MPI: a single process"

    public init() {
        hostName = ProcessInfo.processInfo.hostName
    }

    public func barrier() {}

    public func broadcast(_ bytes: UnsafeMutableRawBufferPointer, root: Int) {
        precondition(root == 0, "rank \(root) does not exist in a single process")
    }

    public func allReduce(_ values: UnsafeMutableBufferPointer<Float>, _ reduction: Reduction) {}
    public func allReduce(_ values: UnsafeMutableBufferPointer<Double>, _ reduction: Reduction) {}
    public func allReduce(_ values: UnsafeMutableBufferPointer<Int64>, _ reduction: Reduction) {}

    public func startAllReduceSum(_ values: UnsafeMutableBufferPointer<Float>) -> PendingReduction {
        PendingReduction()
    }

    public func reduceScatterSum(
        _ values: UnsafeBufferPointer<Float>, counts: [Int], into slice: UnsafeMutableBufferPointer<Float>
    ) {
        precondition(counts == [values.count] && slice.count == values.count)
        _ = slice.update(fromContentsOf: values)
    }

    public func allGather(inPlace bytes: UnsafeMutableRawBufferPointer, parts: [Range<Int>], elementSize: Int)
    {
        precondition(parts.count == 1, "\(parts.count) parts for one rank")
    }

    public func allGather(_ bytes: [UInt8]) -> [[UInt8]] { [bytes] }

    public func gather(_ bytes: [UInt8], root: Int) -> [[UInt8]]? {
        precondition(root == 0, "rank \(root) does not exist in a single process")
        return [bytes]
    }

    public func send(_ bytes: UnsafeRawBufferPointer, to destination: Int, tag: Int) {
        preconditionFailure("a single process has no rank \(destination) to send to")
    }

    public func receive(_ bytes: UnsafeMutableRawBufferPointer, from source: Int, tag: Int) {
        preconditionFailure("a single process has no rank \(source) to receive from")
    }

    public func meetsAllRanks(within seconds: Double) -> Bool { true }

    public func abort(_ code: Int32) -> Never {
        fflush(nil)
        _exit(code)
    }
}
