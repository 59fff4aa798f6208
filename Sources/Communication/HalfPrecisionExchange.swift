import CKernels
import Foundation
import MPIShim

/// Sums gradients over the ranks with half the bytes: they are transferred as bf16 and added in fp32.
///
/// Each rank sends its contribution to another rank's slice directly to that rank, as soon as the backward
/// pass has computed it. A contribution is rounded once, for the transfer, and an owner's own contribution is
/// not rounded: the error of the sum over M ranks is at most 2⁻⁸ of the values of each of the M - 1 others,
/// regardless of M. (A ring all-reduce in bf16 would round M times.) Owners add in rank order, so the result
/// is deterministic.
///
/// The send and receive buffers take 2 bytes per element each. Gradients of other ranks' slices are not
/// modified: the padding between parameters, which the backward pass never writes, must stay zero. A step
/// allocates no memory.
final class HalfPrecisionExchange {
    private let communicator: Communicator
    private let gradients: UnsafeMutablePointer<Float>
    private let slices: ShardLayout
    private let sharding: Sharding
    let requests: UnsafeMutablePointer<mpishim_request>
    private(set) var started = 0
    /// The other ranks' contributions to this rank's slice, consecutively in rank order.
    private let incoming: UnsafeMutablePointer<UInt16>
    /// Contributions to other ranks' slices, at their offsets in the flat buffer; without sharding, later the
    /// sums of all slices.
    private let outgoing: UnsafeMutablePointer<UInt16>
    private let block: UnsafeMutablePointer<Float>

    /// Elements per addition; small enough that the data stays in cache.
    private static let blockSize = 1 << 18

    /// - Parameters:
    ///   - gradients: `slices.count` elements; it must outlive the exchange and not move.
    ///   - pieces: an upper bound on the pieces of one step.
    init(
        communicator: Communicator, gradients: UnsafeMutablePointer<Float>, slices: ShardLayout,
        sharding: Sharding, pieces: Int
    ) {
        (self.communicator, self.gradients) = (communicator, gradients)
        (self.slices, self.sharding) = (slices, sharding)
        let others = communicator.size - 1
        requests = .allocate(capacity: max(1, pieces * others))
        requests.initialize(repeating: mpishim_null_request(), count: pieces * others)
        incoming = .allocate(capacity: max(1, slices[communicator.rank].count * others))
        outgoing = .allocate(capacity: max(1, slices.count))
        block = .allocate(capacity: Self.blockSize)
    }

    deinit {
        requests.deallocate()
        incoming.deallocate()
        outgoing.deallocate()
        block.deallocate()
    }

    /// Starts the transfer of a range of gradients to its owner; they must not be accessed until `finish` has
    /// returned.
    ///
    /// - Parameter tag: the same on all ranks, and unique for each piece of a step.
    /// - Returns: MPI's error code.
    func start(_ range: Range<Int>, owner: Int, tag: Int) -> Int32 {
        guard owner == communicator.rank else {
            let halves = outgoing + range.lowerBound
            ck_cast(CK_F32, CK_BF16, range.count, gradients + range.lowerBound, halves)
            defer { started += 1 }
            return mpishim_start_send(halves, 2 * range.count, Int32(owner), Int32(tag), requests + started)
        }
        let own = slices[owner]
        for (place, source) in others.enumerated() {
            let target = incoming + place * own.count + (range.lowerBound - own.lowerBound)
            let error = mpishim_start_receive(
                target, 2 * range.count, Int32(source), Int32(tag), requests + started)
            started += 1
            if error != 0 { return error }
        }
        return 0
    }

    /// Computes the sums in this rank's slice, or in all slices without sharding. All requests must be
    /// complete.
    func finish() throws(CommunicationError) {
        started = 0
        let own = slices[communicator.rank]
        for begin in stride(from: 0, to: own.count, by: Self.blockSize) {
            let count = min(Self.blockSize, own.count - begin)
            let sum = gradients + own.lowerBound + begin
            for place in 0..<communicator.size - 1 {
                ck_cast(CK_BF16, CK_F32, count, incoming + place * own.count + begin, block)
                ck_add(CK_F32, count, 1, sum, 1, block, sum)
            }
        }
        guard sharding == .none else { return }
        // Owners also use the rounded sums, so that replicas are identical.
        ck_cast(CK_F32, CK_BF16, own.count, gradients + own.lowerBound, outgoing + own.lowerBound)
        try communicator.allGather(
            inPlace: UnsafeMutableRawBufferPointer(start: outgoing, count: 2 * slices.count),
            parts: slices.all.map { 2 * $0.lowerBound..<2 * $0.upperBound }, elementSize: 2)
        ck_cast(CK_BF16, CK_F32, slices.count, outgoing, gradients)
    }

    private var others: [Int] { (0..<communicator.size).filter { $0 != communicator.rank } }
}
