import Foundation

/// A thread that runs an action periodically, by the monotonic clock, until it is stopped.
final class Heartbeats: @unchecked Sendable {
    // Unchecked: only the thread writes `count`; it is read after the thread has ended.
    private var count = 0
    private let interval: Double
    private let action: @Sendable (_ count: Int) -> Void
    private let ended = DispatchSemaphore(value: 0)
    /// A pipe. Closing its write end wakes the thread.
    private var ends: [Int32] = [-1, -1]

    /// - Parameters:
    ///   - interval: seconds between two calls of `action`.
    ///   - action: called with the number of beats so far, including this one. It must not take a lock that
    ///     the caller of `stop` holds.
    init(every interval: Double, _ action: @escaping @Sendable (_ count: Int) -> Void) {
        self.interval = interval
        self.action = action
        precondition(pipe(&ends) == 0, "no file descriptor for the heartbeats")
        // Child processes must not keep the pipe open.
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        let thread = Thread { [self] in beat() }
        thread.name = "heartbeats"
        thread.startWithoutSignals()
    }

    /// Ends the thread and waits for it.
    ///
    /// - Returns: the number of beats.
    func stop() -> Int {
        close(ends[1])
        ended.wait()
        close(ends[0])
        return count
    }

    private func beat() {
        defer { ended.signal() }
        while true {
            var end = pollfd(fd: ends[0], events: Int16(POLLIN), revents: 0)
            // poll uses the monotonic clock; the deadline of a condition variable would change with the wall
            // clock.
            let result = poll(&end, 1, Int32(interval * 1000))
            if result > 0 || (result < 0 && errno != EINTR) { return }
            if result == 0 {
                count += 1
                action(count)
            }
        }
    }
}

/// Work on a separate thread; `wait` returns its result. The work must not call MPI.
///
/// `@unchecked Sendable`: the lock guards the only mutable state, `result`.
package final class BackgroundJob<Value: Sendable>: @unchecked Sendable {
    private let condition = NSCondition()
    private var result: Result<Value, any Error>?

    package init(name: String, _ work: @escaping @Sendable () throws -> Value) {
        let thread = Thread { [self] in
            let outcome = Result { try work() }
            condition.lock()
            result = outcome
            condition.broadcast()
            condition.unlock()
        }
        thread.name = name
        thread.stackSize = 1 << 20
        thread.start()
    }

    package var isDone: Bool {
        condition.lock()
        defer { condition.unlock() }
        return result != nil
    }

    /// Waits for the work to finish and returns its result, or throws its error.
    package func wait() throws -> Value {
        condition.lock()
        defer { condition.unlock() }
        while result == nil { condition.wait() }
        return try result!.get()
    }
}

/// Starts a detached thread with all signals blocked.
///
/// - Parameter name: the thread name; Linux shows its first 15 bytes.
package func startThread(_ name: String, _ body: @escaping @Sendable () -> Void) {
    let thread = Thread {
        // Foundation's thread name is not visible to top and debuggers.
        if let file = fopen("/proc/thread-self/comm", "w") {
            fputs(name, file)
            fclose(file)
        }
        body()
    }
    thread.startWithoutSignals()
}

extension Thread {
    /// Starts a thread that receives no signals: the thread that installed the handlers handles them.
    fileprivate func startWithoutSignals() {
        var all = sigset_t()
        var previous = sigset_t()
        sigfillset(&all)
        pthread_sigmask(SIG_BLOCK, &all, &previous)
        start()
        pthread_sigmask(SIG_SETMASK, &previous, nil)
    }
}
