import Foundation

/// An elementwise reduction over ranks.
package enum Reduction: Sendable {
    case sum, max, min
}

/// The ranks of a run and the communication between them.
///
/// There are two implementations: `MPICommunicator` under mpirun or srun, and `SingleProcess` for a program
/// started without a launcher, which does not use MPI. `openCommunicator()` selects one.
///
/// All calls except `send` and `receive` are collective: all ranks make them, in the same order and with the
/// same element counts. All calls must be made on the thread that opened the communicator.
package protocol Communicator: AnyObject {
    /// The rank of this process, in `0..<size`.
    var rank: Int { get }
    /// The number of processes of the run.
    var size: Int { get }
    /// The rank of this process among those on the same host, in `0..<localSize`.
    var localRank: Int { get }
    /// The number of processes on this host.
    var localSize: Int { get }
    var hostName: String { get }
    /// The MPI library and its version, or a note that there is none.
    var libraryVersion: String { get }

    /// Returns when every rank has called it.
    func barrier() throws(CommunicationError)

    /// Copies the bytes of `root` to all ranks' buffers. All buffers have the same length.
    func broadcast(_ bytes: UnsafeMutableRawBufferPointer, root: Int) throws(CommunicationError)

    /// Reduces elementwise over the ranks; the result is bit-identical on all ranks.
    func allReduce(_ values: UnsafeMutableBufferPointer<Float>, _ reduction: Reduction)
        throws(CommunicationError)
    func allReduce(_ values: UnsafeMutableBufferPointer<Double>, _ reduction: Reduction)
        throws(CommunicationError)
    func allReduce(_ values: UnsafeMutableBufferPointer<Int64>, _ reduction: Reduction)
        throws(CommunicationError)

    /// Starts an in-place all-reduce (sum). `values` must not be read, written or moved until the result has
    /// been waited for.
    func startAllReduceSum(_ values: UnsafeMutableBufferPointer<Float>)
        throws(CommunicationError) -> PendingReduction

    /// Reduce-scatter: sums `values` over the ranks and distributes the result in consecutive slices.
    ///
    /// - Parameters:
    ///   - values: `counts.reduce(0, +)` elements, unchanged.
    ///   - counts: the length of each rank's slice; identical on all ranks.
    ///   - slice: receives this rank's `counts[rank]` elements.
    func reduceScatterSum(
        _ values: UnsafeBufferPointer<Float>, counts: [Int], into slice: UnsafeMutableBufferPointer<Float>
    ) throws(CommunicationError)

    /// In-place all-gather of a buffer in which each rank owns one part.
    ///
    /// - Parameters:
    ///   - bytes: contains the parts of all ranks afterwards.
    ///   - parts: `parts[r]` are the byte offsets that rank r owns; identical on all ranks. Parts may be
    ///     empty and must not overlap.
    ///   - elementSize: 1, 2, 4 or 8; offsets and lengths are multiples of it.
    func allGather(inPlace bytes: UnsafeMutableRawBufferPointer, parts: [Range<Int>], elementSize: Int)
        throws(CommunicationError)

    /// The bytes of all ranks, in rank order, on all ranks. The lengths may differ.
    func allGather(_ bytes: [UInt8]) throws(CommunicationError) -> [[UInt8]]

    /// The bytes of all ranks, in rank order, on `root`; nil on the other ranks. The lengths may differ.
    func gather(_ bytes: [UInt8], root: Int) throws(CommunicationError) -> [[UInt8]]?

    /// Sends to one other rank, which must call `receive` with a buffer of the same length.
    func send(_ bytes: UnsafeRawBufferPointer, to destination: Int, tag: Int) throws(CommunicationError)
    func receive(_ bytes: UnsafeMutableRawBufferPointer, from source: Int, tag: Int)
        throws(CommunicationError)

    /// Whether all ranks call this within a timeout. For a rank that has failed and must find out whether all
    /// other ranks have failed, too. If this returns false, no further communication is possible and the
    /// program must end.
    func meetsAllRanks(within seconds: Double) -> Bool

    /// Ends all ranks immediately, without cleanup. For a failure that cannot be communicated to the other
    /// ranks.
    func abort(_ code: Int32) -> Never
}

/// Opens the communicator of this process: MPI if mpirun or srun started it, otherwise a single process.
///
/// - Throws: if the process was started as one of several but MPI does not find the others. Otherwise several
///   independent runs would write to one folder.
package func openCommunicator(
    environment: [String: String] = ProcessInfo.processInfo.environment
) throws(CommunicationError) -> any Communicator {
    switch try LaunchEnvironment(environment) {
    case .alone:
        return SingleProcess()
    case .rank(let expectedSize):
        let communicator = try MPICommunicator()
        if let expectedSize, expectedSize != communicator.size {
            let found = communicator.size
            throw CommunicationError(
                operation: "start-up",
                reason: "the launcher started \(expectedSize) processes, but \(communicator.libraryVersion) "
                    + "sees \(found); start them with the mpirun of the Open MPI that disttrain is "
                    + "linked to, or with srun --mpi=pmix")
        }
        return communicator
    }
}
