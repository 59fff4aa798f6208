import Foundation

/// Standard output or standard error of a program that a slow or dead reader must not block.
///
/// A closed reader is not an error. A reader that has stopped reading (a paused pager, a hung log collector)
/// is waited for once, for `patience` seconds; after that, lines are dropped until it reads again. Use
/// `print` instead for requested output such as a table: `print` waits for its reader.
package final class Console: @unchecked Sendable {  // `isStalled` is accessed only under the lock.
    package static let output = Console(descriptor: STDOUT_FILENO)
    package static let error = Console(descriptor: STDERR_FILENO)

    private let descriptor: Int32
    private let patience: Double
    private let lock = NSLock()
    private var isStalled = false

    /// - Parameter patience: seconds to wait for a stalled reader.
    package init(descriptor: Int32, patience: Double = 2) {
        self.descriptor = descriptor
        self.patience = patience
    }

    /// Writes the text; drops it if the reader is gone or stalled.
    package func write(_ text: String) {
        lock.lock()
        defer { lock.unlock() }
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            guard waitForRoom() else { return }
            // PIPE_BUF (4096), which Swift does not import: poll guarantees room for this many bytes, and a
            // larger write could block.
            let count = rest.withUnsafeBytes {
                Foundation.write(descriptor, $0.baseAddress, min($0.count, 4096))
            }
            if count < 0 && (errno == EINTR || errno == EAGAIN) { continue }
            if count <= 0 { return }
            rest = rest.dropFirst(count)
        }
    }

    /// Whether a write would not block. True also for a write that would fail at once.
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

/// Prints a line on standard output without buffering, whether it is a terminal or a file.
package func printLine(_ line: String) { Console.output.write(line + "\n") }
