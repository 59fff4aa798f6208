import Foundation

/// A thread that does something every so many seconds, by a clock that nobody sets, until it is stopped.
final class Heartbeats: @unchecked Sendable {
    // Unchecked: `count` is written by the thread alone, and read after it has ended.
    private var count = 0
    private let interval: Double
    private let action: @Sendable (_ count: Int) -> Void
    private let ended = DispatchSemaphore(value: 0)
    /// Closing the second end wakes the thread.
    private var ends: [Int32] = [-1, -1]

    /// - Parameter action: told how many beats there were, this one included. It must take hold of nothing that the
    ///   caller of `stop` holds.
    package init(every interval: Double, _ action: @escaping @Sendable (_ count: Int) -> Void) {
        self.interval = interval
        self.action = action
        precondition(pipe(&ends) == 0, "no file descriptor for the heartbeats")
        // A program that is started must not keep the pipe open.
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        let thread = Thread { [self] in beat() }
        thread.name = "heartbeats"
        // Signals are for the thread that has set up their handlers.
        var all = sigset_t()
        var previous = sigset_t()
        sigfillset(&all)
        pthread_sigmask(SIG_BLOCK, &all, &previous)
        thread.start()
        pthread_sigmask(SIG_SETMASK, &previous, nil)
    }

    /// Ends the thread and waits for it.
    ///
    /// - Returns: how many beats there were.
    package func stop() -> Int {
        close(ends[1])
        ended.wait()
        close(ends[0])
        return count
    }

    private func beat() {
        defer { ended.signal() }
        while true {
            var end = pollfd(fd: ends[0], events: Int16(POLLIN), revents: 0)
            // poll waits by the monotonic clock; a condition's deadline would move with the wall clock.
            let result = poll(&end, 1, Int32(interval * 1000))
            if result > 0 || (result < 0 && errno != EINTR) { return }
            if result == 0 {
                count += 1
                action(count)
            }
        }
    }
}
