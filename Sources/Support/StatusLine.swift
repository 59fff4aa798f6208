import Foundation

/// One line on standard error that tells how things stand: redrawn in place on a terminal, a line each time
/// elsewhere.
package final class StatusLine {
    private let write: (String) -> Void
    private let width: () -> Int?
    private var shown: String?

    /// On a file: standard error unless told otherwise.
    package convenience init(descriptor: Int32 = STDERR_FILENO) {
        let console = descriptor == STDERR_FILENO ? Console.error : Console(descriptor: descriptor)
        self.init(width: { Self.terminalWidth(descriptor) }, write: { console.write($0) })
    }

    /// - Parameters:
    ///   - width: columns of the terminal, asked for each time since windows change; nil where it is none.
    ///   - write: takes the text, control characters included.
    package init(width: @escaping () -> Int?, write: @escaping (String) -> Void) {
        self.width = width
        self.write = write
    }

    /// Whether the line is redrawn in place.
    package var isTerminal: Bool { width() != nil }

    /// Shows the fields in place of those shown before. On a terminal, fields that do not fit are left out from the
    /// end: the first ones matter most.
    package func show(_ fields: [String], separator: String = "  ") {
        guard let width = width() else {
            return write(fields.joined(separator: separator) + "\n")
        }
        // The last column stays free: some terminals wrap when it is written.
        let room = max(1, width - 1)
        var fitting = fields
        while fitting.count > 1, fitting.joined(separator: separator).count > room { fitting.removeLast() }
        let text = String(fitting.joined(separator: separator).prefix(room))
        shown = text
        write("\r\u{1B}[K\(text)")
    }

    /// Prints a line that stays, above the one that is redrawn.
    package func print(_ line: String) {
        guard let shown else { return write(line + "\n") }
        write("\r\u{1B}[K\(line)\n\(shown)")
    }

    /// Leaves the line as it is and goes to the next.
    package func finish() {
        if shown != nil { write("\n") }
        shown = nil
    }

    /// nil where the file is no terminal that can redraw.
    static func terminalWidth(_ descriptor: Int32) -> Int? {
        guard isatty(descriptor) == 1, ProcessInfo.processInfo.environment["TERM"] != "dumb" else {
            return nil
        }
        var size = winsize()
        guard ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return 80 }
        return Int(size.ws_col)
    }
}
