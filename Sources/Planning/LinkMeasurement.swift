import Communication
import Foundation
import MPIShim
import Support

/// Measures messages between two ranks, and between all ring neighbours at once, from which α, β and γ are
/// derived.
package struct LinkMeasurement {
    private let communicator: Communicator
    private let sent: UnsafeMutableRawBufferPointer
    private let received: UnsafeMutableRawBufferPointer

    /// - Parameter largest: bytes of the longest message.
    package init?(_ communicator: Communicator, largest: Int) {
        guard communicator.size > 1 else { return nil }
        self.communicator = communicator
        sent = .allocate(byteCount: largest, alignment: 64)
        received = .allocate(byteCount: largest, alignment: 64)
        sent.initializeMemory(as: UInt8.self, repeating: 1)
        received.initializeMemory(as: UInt8.self, repeating: 0)
    }

    /// Frees the buffers.
    package func deallocate() {
        sent.deallocate()
        received.deallocate()
    }

    /// One-way seconds of a message between two ranks: the minimum of several rounds, returned on every rank.
    /// Collective.
    package func pingPong(_ first: Int, _ second: Int, bytes: Int, rounds: Int) throws(CommunicationError)
        -> Double
    {
        try communicator.barrier()
        let out = UnsafeRawBufferPointer(rebasing: sent[..<bytes])
        let back = UnsafeMutableRawBufferPointer(rebasing: received[..<bytes])
        var least = Double.infinity
        for round in 0..<rounds {
            let start = monotonicSeconds()
            if communicator.rank == first {
                try communicator.send(out, to: second, tag: round)
                try communicator.receive(back, from: second, tag: round)
                least = min(least, (monotonicSeconds() - start) / 2)
            } else if communicator.rank == second {
                try communicator.receive(back, from: first, tag: round)
                try communicator.send(out, to: first, tag: round)
            }
        }
        return try communicator.allReduceMin(least)
    }

    /// Seconds until every rank has sent `bytes` to the next rank and received as many from the previous one:
    /// the minimum of several rounds after a warm-up round. Collective.
    package func exchange(bytes: Int, rounds: Int) throws(CommunicationError) -> Double {
        var least = Double.infinity
        for round in 0...rounds {
            try communicator.barrier()
            let start = monotonicSeconds()
            try communicator.exchange(
                sending: UnsafeRawBufferPointer(rebasing: sent[..<bytes]), to: next,
                receiving: UnsafeMutableRawBufferPointer(rebasing: received[..<bytes]), from: previous, tag: 0
            )
            let seconds = try communicator.allReduceMax(monotonicSeconds() - start)
            if round > 0 { least = min(least, seconds) }
        }
        return least
    }

    /// Calls `compute` repeatedly while such exchanges proceed. Collective.
    ///
    /// - Parameters:
    ///   - bytes: message size; `inFlight` messages are in flight at a time.
    ///   - compute: about 1 ms of work. MPI is called between two calls, as between the operations of a
    ///     backward pass.
    /// - Returns: the slowest rank's seconds, and the mean number of bytes that a rank has sent. Messages
    ///   that are in flight at the end count half.
    func exchangeWhileComputing(bytes: Int, inFlight: Int, calls: Int, _ compute: () -> Void)
        throws(CommunicationError) -> (seconds: Double, bytes: Double)
    {
        var requests = Array(repeating: mpishim_null_request(), count: 2 * inFlight)
        var started = Array(repeating: 0.0, count: inFlight)
        var error: Int32 = 0
        func start(_ slot: Int) {
            let (place, tag) = (slot * bytes, Int32(slot))
            error |= mpishim_start_receive(
                received.baseAddress! + place, bytes, Int32(previous), tag, &requests[2 * slot])
            error |= mpishim_start_send(
                sent.baseAddress! + place, bytes, Int32(next), tag, &requests[2 * slot + 1])
            started[slot] += 1
        }
        func wait(_ slot: Int) {
            for request in 2 * slot...2 * slot + 1 { error |= mpishim_wait(&requests[request]) }
        }

        try communicator.barrier()
        let begin = monotonicSeconds()
        for slot in 0..<inFlight { start(slot) }
        for _ in 0..<calls {
            compute()
            for slot in 0..<inFlight {
                var done: Int32 = 0
                error |= requests.withUnsafeMutableBufferPointer {
                    mpishim_test_all($0.baseAddress! + 2 * slot, 2, &done)
                }
                if done != 0 { start(slot) }
            }
        }
        let seconds = monotonicSeconds() - begin
        let moved = Double(bytes) * (started.reduce(0, +) - Double(inFlight) / 2)
        // Every message needs its counterpart, so a rank that has started fewer messages starts as many as
        // the others.
        var most = started
        try communicator.allReduceMax(&most)
        for slot in 0..<inFlight {
            while started[slot] < most[slot] {
                wait(slot)
                start(slot)
            }
            wait(slot)
        }
        try checked("exchanging while computing", error)
        return (
            try communicator.allReduceMax(seconds),
            try communicator.allReduceSum(moved) / Double(communicator.size)
        )
    }

    /// The slowest rank's seconds for the same calls without messages in flight. Collective.
    func computing(calls: Int, _ compute: () -> Void) throws(CommunicationError) -> Double {
        try communicator.barrier()
        let begin = monotonicSeconds()
        for _ in 0..<calls { compute() }
        return try communicator.allReduceMax(monotonicSeconds() - begin)
    }

    private var next: Int { (communicator.rank + 1) % communicator.size }
    private var previous: Int { (communicator.rank - 1 + communicator.size) % communicator.size }
}
