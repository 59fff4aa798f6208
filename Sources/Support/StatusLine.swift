import Foundation

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
