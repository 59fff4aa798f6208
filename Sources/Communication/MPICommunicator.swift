import Foundation
import MPIShim

/// The ranks started by mpirun or srun, on Open MPI. There is one instance per process.
package final class MPICommunicator: Communicator {
    package enum ThreadSupport: Int32, Comparable, Sendable {
        case single = 0
        /// Only one thread calls MPI. This is the level that the program needs.
        case funneled = 1
        case serialized = 2
        /// Any thread may call MPI at any time.
        case multiple = 3

        package static func < (lhs: Self, rhs: Self) -> Bool { lhs.rawValue < rhs.rawValue }
    }

    package let rank: Int
    package let size: Int
    package let localRank: Int
    package let localSize: Int
    /// For each rank, the lowest rank on its host.
    let hostLeaders: [Int]
    package let hostName: String
    package let libraryVersion: String
    /// The level that MPI provides, which may be less than requested.
    package let threadSupport: ThreadSupport

    /// Number of reductions that were started and then dropped; if there are any, MPI cannot be finalized.
    private(set) var abandonedRequests = 0

    /// Initializes MPI, and waits until all ranks have done so.
    package init(threadSupport requested: ThreadSupport = .funneled) throws(CommunicationError) {
        precondition(mpishim_is_running() == 0, "MPI is initialised once a process")
        var provided: Int32 = 0
        try checked("start-up (MPI_Init)", mpishim_init(requested.rawValue, &provided))
        threadSupport = ThreadSupport(rawValue: provided) ?? .single
        rank = Int(mpishim_rank())
        size = Int(mpishim_size())
        localRank = Int(mpishim_local_rank())
        localSize = Int(mpishim_local_size())
        var leader = Int64(mpishim_local_leader())
        var leaders = [Int64](repeating: 0, count: size)
        try checked(
            "all-gather of hosts", mpishim_allgather(&leader, MemoryLayout<Int64>.size, &leaders))
        hostLeaders = leaders.map { Int($0) }
        hostName = text { mpishim_processor_name($0, $1) }
        // "Open MPI v4.1.4, package: Debian OpenMPI, ident: ..., Nov 1, 2022": the first part is sufficient.
        let version = text {
            mpishim_library_version($0, $1)
            return 0
        }
        libraryVersion = String(version.prefix { $0 != "," })
    }

    /// Whether MPI is running in this process.
    package static var isRunning: Bool { mpishim_is_running() != 0 }

    /// Finalizes MPI. Collective; no communication is possible afterwards.
    package func finalize() throws(CommunicationError) {
        precondition(abandonedRequests == 0, "MPI cannot be finalized under an open request")
        try checked("the end (MPI_Finalize)", mpishim_finalize())
    }

    func noteAbandonedRequest() { abandonedRequests += 1 }

    // MARK: Collectives

    package func barrier() throws(CommunicationError) {
        try checked("barrier", mpishim_barrier())
    }

    package func broadcast(_ bytes: UnsafeMutableRawBufferPointer, root: Int) throws(CommunicationError) {
        try checked(
            "broadcast of \(bytes.count) bytes from rank \(root)",
            mpishim_broadcast(bytes.baseAddress, bytes.count, Int32(root)))
    }

    package func allReduce(_ values: UnsafeMutableBufferPointer<Float>, _ reduction: Reduction)
        throws(CommunicationError)
    {
        try allReduce(values.baseAddress, values.count, MPISHIM_FLOAT, reduction)
    }

    package func allReduce(_ values: UnsafeMutableBufferPointer<Double>, _ reduction: Reduction)
        throws(CommunicationError)
    {
        try allReduce(values.baseAddress, values.count, MPISHIM_DOUBLE, reduction)
    }

    package func allReduce(_ values: UnsafeMutableBufferPointer<Int64>, _ reduction: Reduction)
        throws(CommunicationError)
    {
        try allReduce(values.baseAddress, values.count, MPISHIM_INT64, reduction)
    }

    private func allReduce(
        _ values: UnsafeMutableRawPointer?, _ count: Int, _ type: mpishim_type, _ reduction: Reduction
    ) throws(CommunicationError) {
        let operation =
            switch reduction {
            case .sum: MPISHIM_SUM
            case .max: MPISHIM_MAX
            case .min: MPISHIM_MIN
            }
        try checked("all-reduce of \(count) values", mpishim_allreduce(values, count, type, operation))
    }

    package func startAllReduceSum(_ values: UnsafeMutableBufferPointer<Float>)
        throws(CommunicationError) -> PendingReduction
    {
        var request = mpishim_null_request()
        try checked(
            "starting an all-reduce of \(values.count) values",
            mpishim_start_allreduce_sum(values.baseAddress, values.count, &request))
        return PendingReduction(request: request, communicator: self)
    }

    /// Sends to one rank while receiving from another. The length of the receive buffer equals that of the
    /// message.
    package func exchange(
        sending sent: UnsafeRawBufferPointer, to destination: Int,
        receiving received: UnsafeMutableRawBufferPointer, from source: Int, tag: Int
    ) throws(CommunicationError) {
        try checked(
            "exchanging \(sent.count) bytes with rank \(destination) for \(received.count) of rank \(source)",
            mpishim_exchange(
                sent.baseAddress, sent.count, Int32(destination), received.baseAddress, received.count,
                Int32(source), Int32(tag)))
    }

    package func reduceScatterSum(
        _ values: UnsafeBufferPointer<Float>, counts: [Int], into slice: UnsafeMutableBufferPointer<Float>
    ) throws(CommunicationError) {
        precondition(counts.count == size, "\(counts.count) counts for \(size) ranks")
        precondition(counts.reduce(0, +) == values.count && counts[rank] == slice.count)
        try checked(
            "reduce-scatter of \(values.count) values",
            mpishim_reduce_scatter_sum(values.baseAddress, slice.baseAddress, counts))
    }

    package func allGather(
        inPlace bytes: UnsafeMutableRawBufferPointer, parts: [Range<Int>], elementSize: Int
    )
        throws(CommunicationError)
    {
        precondition(parts.count == size, "\(parts.count) parts for \(size) ranks")
        precondition(parts.allSatisfy { $0.lowerBound >= 0 && $0.upperBound <= bytes.count })
        try checked(
            "all-gather of \(bytes.count) bytes in place",
            mpishim_allgather_in_place(
                bytes.baseAddress, parts.map(\.count), parts.map(\.lowerBound), elementSize))
    }

    package func allGather(_ bytes: [UInt8]) throws(CommunicationError) -> [[UInt8]] {
        let parts = try layout(of: bytes.count)
        var all = [UInt8](repeating: 0, count: parts.last?.upperBound ?? 0)
        all.replaceSubrange(parts[rank], with: bytes)
        try unlessFailed(
            all.withUnsafeMutableBytes { buffer in
                Result { () throws(CommunicationError) in
                    try allGather(inPlace: buffer, parts: parts, elementSize: 1)
                }
            })
        return parts.map { Array(all[$0]) }
    }

    package func gather(_ bytes: [UInt8], root: Int) throws(CommunicationError) -> [[UInt8]]? {
        let parts = try layout(of: bytes.count)
        var all = [UInt8](repeating: 0, count: rank == root ? parts.last?.upperBound ?? 0 : 0)
        let error = all.withUnsafeMutableBytes { buffer in
            mpishim_gather(
                bytes, bytes.count, buffer.baseAddress, parts.map(\.count), parts.map(\.lowerBound),
                Int32(root))
        }
        try checked("gather of \(bytes.count) bytes on rank \(root)", error)
        return rank == root ? parts.map { Array(all[$0]) } : nil
    }

    /// The byte ranges of all ranks' data when it is concatenated in rank order.
    private func layout(of count: Int) throws(CommunicationError) -> [Range<Int>] {
        var own = Int64(count)
        var counts = [Int64](repeating: 0, count: size)
        try checked("all-gather of lengths", mpishim_allgather(&own, MemoryLayout<Int64>.size, &counts))
        var end = 0
        return counts.map { count in
            defer { end += Int(count) }
            return end..<end + Int(count)
        }
    }

    // MARK: Messages

    package func send(_ bytes: UnsafeRawBufferPointer, to destination: Int, tag: Int)
        throws(CommunicationError)
    {
        try checked(
            "sending \(bytes.count) bytes to rank \(destination)",
            mpishim_send(bytes.baseAddress, bytes.count, Int32(destination), Int32(tag)))
    }

    package func receive(_ bytes: UnsafeMutableRawBufferPointer, from source: Int, tag: Int)
        throws(CommunicationError)
    {
        try checked(
            "receiving \(bytes.count) bytes from rank \(source)",
            mpishim_receive(bytes.baseAddress, bytes.count, Int32(source), Int32(tag)))
    }

    package func abort(_ code: Int32) -> Never {
        fflush(nil)
        mpishim_abort(code)
    }
}

/// Throws an error for an MPI error code. The operation's name is only constructed on failure.
package func checked(_ operation: @autoclosure () -> String, _ error: Int32) throws(CommunicationError) {
    guard error != 0 else { return }
    let reason = text {
        mpishim_error_string(error, $0, $1)
        return 0
    }
    throw CommunicationError(operation: operation(), reason: reason)
}

/// The text that a C function writes into a buffer with the given capacity.
private func text(_ write: (UnsafeMutablePointer<CChar>, Int) -> Int32) -> String {
    withUnsafeTemporaryAllocation(of: CChar.self, capacity: 512) { buffer in
        guard let start = buffer.baseAddress else { return "" }
        start.pointee = 0
        _ = write(start, buffer.count)
        return String(cString: start)
    }
}

/// Whether one process of this host can read another's memory, which MPI's shared-memory transport uses for
/// large messages. A container or a security policy may forbid it; MPI must then be configured not to use it.
package func sharedMemorySingleCopyWorks() -> Bool {
    mpishim_single_copy_works() != 0
}
