import Foundation

/// Standard output and error of a program that must not be stopped by those who read them.
///
/// A reader that has gone away is no error, and one that has fallen asleep (a paused pager, a log collector that
/// hangs) is waited for once: after that, lines are left out until it reads again. Text that somebody asked for, such
/// as a table, does not belong here: `print` waits for its reader.
package final class Console: @unchecked Sendable {  // `isStalled` is used under the lock alone.
    package static let output = Console(descriptor: STDOUT_FILENO)
    package static let error = Console(descriptor: STDERR_FILENO)

    private let descriptor: Int32
    private let patience: Double
    private let lock = NSLock()
    private var isStalled = false

    /// - Parameter patience: seconds to wait for a reader.
    package init(descriptor: Int32, patience: Double = 2) {
        self.descriptor = descriptor
        self.patience = patience
    }

    /// Writes the text, or leaves it out where nobody takes it.
    package func write(_ text: String) {
        lock.lock()
        defer { lock.unlock() }
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            guard waitForRoom() else { return }
            // A pipe that has room takes so much at once, and more would have to wait: PIPE_BUF, which Swift
            // does not see.
            let count = rest.withUnsafeBytes {
                Foundation.write(descriptor, $0.baseAddress, min($0.count, 4096))
            }
            if count < 0 && (errno == EINTR || errno == EAGAIN) { continue }
            if count <= 0 { return }
            rest = rest.dropFirst(count)
        }
    }

    /// Whether a write would not wait; one that fails does not.
    private func waitForRoom() -> Bool {
        let deadline = monotonicSeconds() + (isStalled ? 0 : patience)
        while true {
            var request = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
            let left = max(0, deadline - monotonicSeconds())
            let found = poll(&request, 1, Int32((left * 1000).rounded(.up)))
            if found < 0 && errno == EINTR { continue }
            isStalled = found == 0
            return !isStalled
        }
    }
}

/// Prints a line on standard output at once, whether it is a terminal or a file.
package func printLine(_ line: String) { Console.output.write(line + "\n") }
