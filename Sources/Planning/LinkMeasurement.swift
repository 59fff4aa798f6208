import Communication
import Foundation
import MPIShim
import Support

/// Messages between two ranks, and between all neighbours at once: what α, β and γ are found from.
package struct LinkMeasurement {
    private let communicator: MPICommunicator
    private let sent: UnsafeMutableRawBufferPointer
    private let received: UnsafeMutableRawBufferPointer

    /// - Parameter largest: bytes of the longest message.
    package init?(_ communicator: any Communicator, largest: Int) {
        guard communicator.size > 1, let communicator = communicator as? MPICommunicator else { return nil }
        self.communicator = communicator
        sent = .allocate(byteCount: largest, alignment: 64)
        received = .allocate(byteCount: largest, alignment: 64)
        sent.initializeMemory(as: UInt8.self, repeating: 1)
        received.initializeMemory(as: UInt8.self, repeating: 0)
    }

    /// Gives the buffers back.
    package func deallocate() {
        sent.deallocate()
        received.deallocate()
    }

    /// Seconds of a message one way between two ranks, the least of several, on every rank. Collective.
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

    /// Seconds until every rank has sent `bytes` to the next and received as many from the one before, the least of
    /// some rounds after one that warms up. Collective.
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

    /// Calls `compute` so many times, and lets such exchanges go on meanwhile. Collective.
    ///
    /// - Parameters:
    ///   - bytes: of a message; `inFlight` are under way at a time.
    ///   - compute: about a millisecond of work; between two calls MPI is called, as between the operations of a
    ///     backward pass.
    /// - Returns: the slowest rank's seconds and the mean of the bytes that a rank has sent; those that were under way
    ///   at the end count for half.
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
        // Every message needs its partner: a rank that has started fewer starts as many as the others.
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

    /// The slowest rank's seconds of as many calls with nothing under way. Collective.
    func computing(calls: Int, _ compute: () -> Void) throws(CommunicationError) -> Double {
        try communicator.barrier()
        let begin = monotonicSeconds()
        for _ in 0..<calls { compute() }
        return try communicator.allReduceMax(monotonicSeconds() - begin)
    }

    private var next: Int { (communicator.rank + 1) % communicator.size }
    private var previous: Int { (communicator.rank - 1 + communicator.size) % communicator.size }
}
