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

/// A status line on standard error: redrawn in place on a terminal, otherwise one new line per update.
package final class StatusLine {
    private let write: (String) -> Void
    private let width: () -> Int?
    private var shown: String?

    /// Creates a status line on a descriptor, by default standard error.
    package convenience init(descriptor: Int32 = STDERR_FILENO) {
        let console = descriptor == STDERR_FILENO ? Console.error : Console(descriptor: descriptor)
        self.init(width: { Self.terminalWidth(descriptor) }, write: { console.write($0) })
    }

    /// - Parameters:
    ///   - width: returns the columns of the terminal, or nil if there is none; called for each update
    ///     because windows are resized.
    ///   - write: writes the text, including control characters.
    package init(width: @escaping () -> Int?, write: @escaping (String) -> Void) {
        self.width = width
        self.write = write
    }

    /// Whether the line is redrawn in place.
    package var isTerminal: Bool { width() != nil }

    /// Replaces the displayed fields. On a terminal, fields that do not fit are omitted from the end; put the
    /// most important fields first.
    package func show(_ fields: [String], separator: String = "  ") {
        guard let width = width() else {
            return write(fields.joined(separator: separator) + "\n")
        }
        // Leave the last column free: some terminals wrap when it is written.
        let room = max(1, width - 1)
        var fitting = fields
        while fitting.count > 1, fitting.joined(separator: separator).count > room { fitting.removeLast() }
        let text = String(fitting.joined(separator: separator).prefix(room))
        shown = text
        write("\r\u{1B}[K\(text)")
    }

    /// Prints a permanent line above the status line.
    package func print(_ line: String) {
        guard let shown else { return write(line + "\n") }
        write("\r\u{1B}[K\(line)\n\(shown)")
    }

    /// Keeps the current line and ends it.
    package func finish() {
        if shown != nil { write("\n") }
        shown = nil
    }

    /// Columns of the terminal; nil if the descriptor is not a terminal that supports redrawing.
    static func terminalWidth(_ descriptor: Int32) -> Int? {
        guard isatty(descriptor) == 1, ProcessInfo.processInfo.environment["TERM"] != "dumb" else {
            return nil
        }
        var size = winsize()
        guard ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return 80 }
        return Int(size.ws_col)
    }
}
