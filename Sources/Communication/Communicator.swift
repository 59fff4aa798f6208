import Foundation

/// How values of several ranks become one.
package enum Reduction: Sendable {
    case sum, max, min
}

/// The ranks of a run and what they say to each other.
///
/// Two implementations: `MPICommunicator` under mpirun or srun, and `SingleProcess` for a program that was
/// started by itself, which never touches MPI. `openCommunicator()` picks one.
///
/// Every call but `send` and `receive` is collective: all ranks make it, in the same order, with the same
/// element counts. All calls are made on the thread that opened the communicator.
package protocol Communicator: AnyObject {
    /// This process among all, in `0..<size`.
    var rank: Int { get }
    /// The number of processes of the run.
    var size: Int { get }
    /// This process among those on the same machine, in `0..<localSize`.
    var localRank: Int { get }
    /// The number of processes on this machine.
    var localSize: Int { get }
    var hostName: String { get }
    /// The message library and its version, or that there is none.
    var libraryVersion: String { get }

    /// Returns when every rank has called it.
    func barrier() throws(CommunicationError)

    /// Copies the bytes of `root` into everyone's buffer. All buffers have the same length.
    func broadcast(_ bytes: UnsafeMutableRawBufferPointer, root: Int) throws(CommunicationError)

    /// Reduces element by element over the ranks; every rank ends with the same bits.
    func allReduce(_ values: UnsafeMutableBufferPointer<Float>, _ reduction: Reduction)
        throws(CommunicationError)
    func allReduce(_ values: UnsafeMutableBufferPointer<Double>, _ reduction: Reduction)
        throws(CommunicationError)
    func allReduce(_ values: UnsafeMutableBufferPointer<Int64>, _ reduction: Reduction)
        throws(CommunicationError)

    /// Starts a sum over the ranks, in place. `values` may be neither read nor written, and has to stay
    /// where it is, until the result has been waited for.
    func startAllReduceSum(_ values: UnsafeMutableBufferPointer<Float>)
        throws(CommunicationError) -> PendingReduction

    /// Sums `values` over the ranks and hands out the result in consecutive slices.
    ///
    /// - Parameters:
    ///   - values: `counts.reduce(0, +)` elements, unchanged.
    ///   - counts: the length of each rank's slice, the same on every rank.
    ///   - slice: receives this rank's `counts[rank]` elements.
    func reduceScatterSum(
        _ values: UnsafeBufferPointer<Float>, counts: [Int], into slice: UnsafeMutableBufferPointer<Float>
    ) throws(CommunicationError)

    /// Completes a buffer of which each rank owns one part.
    ///
    /// - Parameters:
    ///   - bytes: holds everyone's parts afterwards.
    ///   - parts: `parts[r]` are the byte offsets that rank r owns, the same table on every rank; parts may
    ///     be empty and do not overlap.
    ///   - elementSize: 1, 2, 4 or 8; offsets and lengths are multiples of it.
    func allGather(inPlace bytes: UnsafeMutableRawBufferPointer, parts: [Range<Int>], elementSize: Int)
        throws(CommunicationError)

    /// Everyone's bytes, in rank order, on every rank. The lengths may differ.
    func allGather(_ bytes: [UInt8]) throws(CommunicationError) -> [[UInt8]]

    /// Everyone's bytes, in rank order, on `root`; nil elsewhere. The lengths may differ.
    func gather(_ bytes: [UInt8], root: Int) throws(CommunicationError) -> [[UInt8]]?

    /// Sends to one other rank, which calls `receive` with a buffer of the same length.
    func send(_ bytes: UnsafeRawBufferPointer, to destination: Int, tag: Int) throws(CommunicationError)
    func receive(_ bytes: UnsafeMutableRawBufferPointer, from source: Int, tag: Int)
        throws(CommunicationError)

    /// Whether every rank calls this within a time. For a rank that fails and does not know whether the others do.
    /// Where they do not, no other call is possible any more but to leave the program.
    func meetsAllRanks(within seconds: Double) -> Bool

    /// Ends all ranks at once, without cleaning up. For a failure that the others cannot be told of.
    func abort(_ code: Int32) -> Never
}

/// The ranks that this process belongs to: MPI's when mpirun or srun started it, itself alone otherwise.
///
/// - Throws: when the process was started as one of several but MPI does not see the others, which would
///   otherwise be several runs writing into one folder.
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
