import Foundation
import MPIShim

/// An elementwise reduction over ranks.
package enum Reduction: Sendable {
    case sum, max, min
}

/// The ranks of a job and their collectives: Open MPI's under mpirun or srun, or a single process without MPI, for which
/// every collective is the identity.
///
/// All calls except `send`, `receive` and `exchange` are collective: all ranks make them in the same order with the
/// same element counts. All calls must be made on the thread that opened the communicator.
package final class Communicator {
    /// The rank of this process, in `0..<size`.
    package let rank: Int
    /// The number of processes of the job.
    package let size: Int
    /// The rank of this process among those on the same host, in `0..<localSize`.
    package let localRank: Int
    /// The number of processes on this host.
    package let localSize: Int
    /// For each rank, the lowest rank on its host.
    let hostLeaders: [Int]
    package let hostName: String
    /// The MPI library and its version, or a text that MPI is not used.
    package let libraryVersion: String
    /// Whether MPI connects the ranks.
    package let usesMPI: Bool

    /// Number of non-blocking messages that were started and then abandoned; if not 0, MPI cannot be finalized.
    private(set) var abandonedRequests = 0

    /// A single process without MPI.
    package init() {
        (rank, size, localRank, localSize, hostLeaders) = (0, 1, 0, 1, [0])
        hostName = ProcessInfo.processInfo.hostName
        libraryVersion = "no MPI: a single process"
        usesMPI = false
    }

    /// Initializes MPI, and waits until all ranks have done so.
    private init(initializingMPI: Void) throws(CommunicationError) {
        precondition(mpishim_is_running() == 0, "MPI is initialized once per process")
        // The program calls MPI on one thread only, which every implementation supports.
        let funneled: Int32 = 1
        var provided: Int32 = 0
        try checked("start-up (MPI_Init)", mpishim_init(funneled, &provided))
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
        // "Open MPI v4.1.4, package: Debian OpenMPI, ident: ..., Nov 1, 2022": the first part suffices.
        let version = text {
            mpishim_library_version($0, $1)
            return 0
        }
        libraryVersion = String(version.prefix { $0 != "," })
        usesMPI = true
    }

    /// The ranks that this process belongs to: MPI's when mpirun or srun started it, itself alone otherwise.
    ///
    /// - Throws: when the process was started as one of several but MPI does not see the others, which would
    ///   otherwise be several runs writing into one folder.
    package static func open(
        environment: [String: String] = ProcessInfo.processInfo.environment
    ) throws(CommunicationError) -> Communicator {
        switch try LaunchEnvironment(environment) {
        case .alone:
            return Communicator()
        case .rank(let expectedSize):
            let communicator = try Communicator(initializingMPI: ())
            if let expectedSize, expectedSize != communicator.size {
                let found = communicator.size
                throw CommunicationError(
                    operation: "start-up",
                    reason:
                        "the launcher started \(expectedSize) processes, but \(communicator.libraryVersion) "
                        + "sees \(found); start them with the mpirun of the Open MPI that disttrain is "
                        + "linked to, or with srun --mpi=pmix")
            }
            return communicator
        }
    }

    /// Whether MPI runs in this process.
    package static var isMPIRunning: Bool { mpishim_is_running() != 0 }

    /// Finalizes MPI. Collective; no calls are allowed afterwards.
    package func finalize() throws(CommunicationError) {
        precondition(abandonedRequests == 0, "MPI cannot be finalized with a message in flight")
        try call("the end (MPI_Finalize)", mpishim_finalize())
    }

    func noteAbandonedRequest() { abandonedRequests += 1 }

    /// Aborts all ranks immediately, without cleaning up, after a failure that cannot be communicated to the others.
    package func abort(_ code: Int32) -> Never {
        fflush(nil)
        guard usesMPI else { _exit(code) }
        mpishim_abort(code)
    }

    // MARK: Collectives

    /// Returns when every rank has called it.
    package func barrier() throws(CommunicationError) { try call("barrier", mpishim_barrier()) }

    /// Copies the bytes of `root` into the buffers of all ranks, which have the same length.
    package func broadcast(_ bytes: UnsafeMutableRawBufferPointer, root: Int) throws(CommunicationError) {
        precondition(root < size, "rank \(root) does not exist")
        try call(
            "broadcast of \(bytes.count) bytes from rank \(root)",
            mpishim_broadcast(bytes.baseAddress, bytes.count, Int32(root)))
    }

    /// Elementwise reduction over the ranks; the results are bitwise identical on all ranks.
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
        try call("all-reduce of \(count) values", mpishim_allreduce(values, count, type, operation))
    }

    /// Sums `values` over the ranks and scatters the result as consecutive shards.
    ///
    /// - Parameters:
    ///   - values: `counts.reduce(0, +)` elements, unchanged.
    ///   - counts: the length of each rank's shard, the same on every rank.
    ///   - shard: receives this rank's `counts[rank]` elements.
    package func reduceScatterSum(
        _ values: UnsafeBufferPointer<Float>, counts: [Int], into shard: UnsafeMutableBufferPointer<Float>
    ) throws(CommunicationError) {
        precondition(counts.count == size, "\(counts.count) counts for \(size) ranks")
        precondition(counts.reduce(0, +) == values.count && counts[rank] == shard.count)
        guard usesMPI else {
            _ = shard.update(fromContentsOf: values)
            return
        }
        try checked(
            "reduce-scatter of \(values.count) values",
            mpishim_reduce_scatter_sum(values.baseAddress, shard.baseAddress, counts))
    }

    /// In-place all-gather of a buffer in which each rank owns one part.
    ///
    /// - Parameters:
    ///   - bytes: contains the parts of all ranks afterwards.
    ///   - parts: `parts[r]` are the byte offsets that rank r owns; identical on all ranks. Parts may be
    ///     empty and must not overlap.
    ///   - elementSize: 1, 2, 4 or 8; offsets and lengths are multiples of it.
    package func allGather(
        inPlace bytes: UnsafeMutableRawBufferPointer, parts: [Range<Int>], elementSize: Int
    ) throws(CommunicationError) {
        precondition(parts.count == size, "\(parts.count) parts for \(size) ranks")
        precondition(parts.allSatisfy { $0.lowerBound >= 0 && $0.upperBound <= bytes.count })
        try call(
            "all-gather of \(bytes.count) bytes in place",
            mpishim_allgather_in_place(
                bytes.baseAddress, parts.map(\.count), parts.map(\.lowerBound), elementSize))
    }

    /// The bytes of all ranks, in rank order, on every rank. The lengths may differ.
    package func allGather(_ bytes: [UInt8]) throws(CommunicationError) -> [[UInt8]] {
        guard usesMPI else { return [bytes] }
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

    /// The bytes of all ranks, in rank order, on `root`; nil elsewhere. The lengths may differ.
    package func gather(_ bytes: [UInt8], root: Int) throws(CommunicationError) -> [[UInt8]]? {
        guard usesMPI else { return [bytes] }
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

    /// The ranges of all ranks' bytes when they are concatenated.
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

    /// Sends to another rank, which calls `receive` with a buffer of the same length.
    package func send(_ bytes: UnsafeRawBufferPointer, to destination: Int, tag: Int)
        throws(CommunicationError)
    {
        precondition(destination < size, "rank \(destination) does not exist")
        try call(
            "sending \(bytes.count) bytes to rank \(destination)",
            mpishim_send(bytes.baseAddress, bytes.count, Int32(destination), Int32(tag)))
    }

    package func receive(_ bytes: UnsafeMutableRawBufferPointer, from source: Int, tag: Int)
        throws(CommunicationError)
    {
        precondition(source < size, "rank \(source) does not exist")
        try call(
            "receiving \(bytes.count) bytes from rank \(source)",
            mpishim_receive(bytes.baseAddress, bytes.count, Int32(source), Int32(tag)))
    }

    /// Sends to one rank while receiving from another. The receive buffer must have the length of the message.
    package func exchange(
        sending sent: UnsafeRawBufferPointer, to destination: Int,
        receiving received: UnsafeMutableRawBufferPointer, from source: Int, tag: Int
    ) throws(CommunicationError) {
        try call(
            "exchanging \(sent.count) bytes with rank \(destination) for \(received.count) of rank \(source)",
            mpishim_exchange(
                sent.baseAddress, sent.count, Int32(destination), received.baseAddress, received.count,
                Int32(source), Int32(tag)))
    }

    /// Calls MPI; does nothing without MPI, since there is only one rank.
    private func call(
        _ operation: @autoclosure () -> String, _ mpi: @autoclosure () -> Int32
    ) throws(CommunicationError) {
        if usesMPI { try checked(operation(), mpi()) }
    }
}

/// Turns an MPI error code into a thrown error. The name of the operation is built only on failure.
package func checked(_ operation: @autoclosure () -> String, _ error: Int32) throws(CommunicationError) {
    if error != 0 { throw CommunicationError(operation(), error) }
}

extension CommunicationError {
    /// - Parameter error: an MPI error code.
    init(_ operation: String, _ error: Int32) {
        self.init(
            operation: operation,
            reason: text {
                mpishim_error_string(error, $0, $1)
                return 0
            })
    }
}

/// The string that a C function writes into a buffer of the given capacity.
private func text(_ write: (UnsafeMutablePointer<CChar>, Int) -> Int32) -> String {
    withUnsafeTemporaryAllocation(of: CChar.self, capacity: 512) { buffer in
        guard let start = buffer.baseAddress else { return "" }
        start.pointee = 0
        _ = write(start, buffer.count)
        return String(cString: start)
    }
}

/// Whether processes on this host may read each other's memory, which MPI's shared-memory transport uses for large
/// messages. Containers and security policies may forbid it; MPI must then be configured accordingly.
package func sharedMemorySingleCopyWorks() -> Bool { mpishim_single_copy_works() != 0 }
