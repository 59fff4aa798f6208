import CKernels
import Foundation
import MPIShim

/// Sums gradients over the ranks with half of the bytes on the wire: they travel in bf16 and are added up in fp32.
///
/// Every rank sends what it has of another's slice straight to that rank, as soon as backward has it. A contribution is
/// rounded once, on its way, and an owner's own is not: the sum of M ranks is off by at most 2⁻⁸ of each of the M - 1
/// others' values, whatever M is. (A ring that sums in bf16 would round M times.) Owners add in the order of the ranks, so
/// the same gradients always give the same bits.
///
/// What is sent is rounded in place, into the first half of its own memory; what is received takes 2·(M - 1)/M bytes an
/// element. A step allocates nothing.
final class HalfPrecisionExchange {
    private let communicator: MPICommunicator
    private let gradients: UnsafeMutablePointer<Float>
    private let slices: FlatSlices
    private let sharding: Sharding
    let requests: UnsafeMutablePointer<mpishim_request>
    private(set) var started = 0
    /// The others' contributions to this rank's slice, one after the other in the order of the ranks.
    private let incoming: UnsafeMutablePointer<UInt16>
    /// The sums of all slices, on their way to everybody; without sharding alone.
    private let spread: UnsafeMutablePointer<UInt16>?
    private let block: UnsafeMutablePointer<Float>

    /// Elements that are rounded, and added, at once: their memory stays in cache.
    private static let blockSize = 1 << 18

    /// - Parameters:
    ///   - gradients: `slices.count` elements; it outlives the exchange and does not move.
    ///   - pieces: an upper bound of the pieces of one step.
    init(
        communicator: MPICommunicator, gradients: UnsafeMutablePointer<Float>, slices: FlatSlices,
        sharding: Sharding, pieces: Int
    ) {
        self.communicator = communicator
        self.gradients = gradients
        self.slices = slices
        self.sharding = sharding
        let others = communicator.size - 1
        requests = .allocate(capacity: max(1, pieces * others))
        requests.initialize(repeating: mpishim_null_request(), count: pieces * others)
        incoming = .allocate(capacity: max(1, slices[communicator.rank].count * others))
        spread = sharding == .none ? .allocate(capacity: slices.count) : nil
        block = .allocate(capacity: Self.blockSize)
    }

    deinit {
        requests.deallocate()
        incoming.deallocate()
        spread?.deallocate()
        block.deallocate()
    }

    /// Starts to bring a run of gradients to its owner; they may not be touched until `finish` has returned.
    ///
    /// - Parameter tag: the same on every rank, another for each piece of a step.
    /// - Returns: MPI's error code.
    func start(_ range: Range<Int>, owner: Int, tag: Int) -> Int32 {
        guard owner == communicator.rank else {
            let halves = round(range)
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

    /// The sums, once all requests are complete: in this rank's slice, or everywhere without sharding.
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
        guard let spread else { return }
        // Owners take the rounded sums too: replicas must not differ.
        ck_cast(CK_F32, CK_BF16, own.count, gradients + own.lowerBound, spread + own.lowerBound)
        try communicator.allGather(
            inPlace: UnsafeMutableRawBufferPointer(start: spread, count: 2 * slices.count),
            parts: slices.all.map { 2 * $0.lowerBound..<2 * $0.upperBound }, elementSize: 2)
        ck_cast(CK_BF16, CK_F32, slices.count, spread, gradients)
    }

    private var others: [Int] { (0..<communicator.size).filter { $0 != communicator.rank } }

    /// Rounds gradients in place, into the first half of their memory.
    private func round(_ range: Range<Int>) -> UnsafeMutableRawPointer {
        let halves = UnsafeMutableRawPointer(gradients + range.lowerBound)
        for begin in stride(from: 0, to: range.count, by: Self.blockSize) {
            let count = min(Self.blockSize, range.count - begin)
            // By way of a block: what is written lies before what is still to be read.
            ck_cast(CK_F32, CK_BF16, count, gradients + range.lowerBound + begin, block)
            memcpy(halves + 2 * begin, block, 2 * count)
        }
        return halves
    }
}
