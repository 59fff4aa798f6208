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
/// What is sent and what is received take 2 bytes an element each. Gradients of others' slices stay as they are: the
/// padding between parameters, which backward never writes, must stay zero. A step allocates nothing.
final class HalfPrecisionExchange {
    private let communicator: MPICommunicator
    private let gradients: UnsafeMutablePointer<Float>
    private let slices: FlatSlices
    private let sharding: Sharding
    let requests: UnsafeMutablePointer<mpishim_request>
    private(set) var started = 0
    /// The others' contributions to this rank's slice, one after the other in the order of the ranks.
    private let incoming: UnsafeMutablePointer<UInt16>
    /// What goes to the others, at its place in the flat buffer; without sharding, the sums of all slices, too.
    private let outgoing: UnsafeMutablePointer<UInt16>
    private let block: UnsafeMutablePointer<Float>

    /// Elements that are added at once: their memory stays in cache.
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
        outgoing = .allocate(capacity: max(1, slices.count))
        block = .allocate(capacity: Self.blockSize)
    }

    deinit {
        requests.deallocate()
        incoming.deallocate()
        outgoing.deallocate()
        block.deallocate()
    }

    /// Starts to bring a run of gradients to its owner; they may not be touched until `finish` has returned.
    ///
    /// - Parameter tag: the same on every rank, another for each piece of a step.
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
        guard sharding == .none else { return }
        // Owners take the rounded sums too: replicas must not differ.
        ck_cast(CK_F32, CK_BF16, own.count, gradients + own.lowerBound, outgoing + own.lowerBound)
        try communicator.allGather(
            inPlace: UnsafeMutableRawBufferPointer(start: outgoing, count: 2 * slices.count),
            parts: slices.all.map { 2 * $0.lowerBound..<2 * $0.upperBound }, elementSize: 2)
        ck_cast(CK_BF16, CK_F32, slices.count, outgoing, gradients)
    }

    private var others: [Int] { (0..<communicator.size).filter { $0 != communicator.rank } }
}
