import Foundation
import Synchronization

/// Appends lines to log files on a separate thread. An unresponsive disk must not prevent the launcher from
/// reading the output of the ranks: their pipes would fill up and the ranks would block.
///
/// Lines that wait for the disk are kept up to a limit. Beyond it, lines are dropped, and the log states how
/// many.
package final class LogWriter: Sendable {
    private struct State {
        var lines: [(path: String, text: String)] = []
        var bytes = 0
        /// Number of dropped lines per file.
        var lost: [String: Int] = [:]
        var isLast = false
    }
    private let state = Mutex(State())
    private let wake = DispatchSemaphore(value: 0)
    private let ended = DispatchSemaphore(value: 0)
    private let capacity: Int

    /// Maximum number of open files: a job may have more ranks than a process may have open files.
    private static let openFiles = 32

    /// - Parameters:
    ///   - capacity: maximum size of the lines that wait for the disk, in bytes.
    ///   - write: appends text to a file; may block.
    package init(capacity: Int = 16 << 20, write: (@Sendable (_ path: String, _ text: String) -> Void)? = nil)
    {
        self.capacity = capacity
        let thread = Thread { [self] in
            var files = LogFiles(limit: Self.openFiles)
            while true {
                wake.wait()
                let taken = state.withLock { state in
                    defer { (state.lines, state.bytes, state.lost) = ([], 0, [:]) }
                    return state
                }
                var texts: [String: String] = [:]
                for line in taken.lines { texts[line.path, default: ""] += line.text + "\n" }
                for (path, count) in taken.lost {
                    texts[path, default: ""] += "[\(count) lines were dropped: the disk did not respond]\n"
                }
                for (path, text) in texts.sorted(by: { $0.key < $1.key }) {
                    if let write { write(path, text) } else { files.append(text, to: path) }
                }
                if taken.isLast { return _ = ended.signal() }
            }
        }
        thread.name = "log writer"
        thread.start()
    }

    /// Enqueues a line, which is appended asynchronously.
    package func append(_ line: String, to path: String) {
        state.withLock { state in
            guard state.bytes + line.utf8.count <= capacity else { return state.lost[path, default: 0] += 1 }
            state.lines.append((path, line))
            state.bytes += line.utf8.count + 1
        }
        wake.signal()
    }

    /// Waits until all lines are written, and ends the thread.
    ///
    /// - Returns: false if the disk has not responded within `seconds`.
    @discardableResult
    package func finish(within seconds: Double) -> Bool {
        state.withLock { $0.isLast = true }
        wake.signal()
        return ended.wait(timeout: .now() + seconds) == .success
    }
}

/// Log files opened for appending; only the most recently used ones stay open.
private struct LogFiles {
    let limit: Int
    private var files: [(path: String, file: FileHandle)] = []

    init(limit: Int) { self.limit = limit }

    mutating func append(_ text: String, to path: String) {
        // A full disk must not stop the job.
        try? file(path)?.write(contentsOf: Data(text.utf8))
    }

    private mutating func file(_ path: String) -> FileHandle? {
        if let index = files.firstIndex(where: { $0.path == path }) {
            let found = files.remove(at: index)
            files.append(found)
            return found.file
        }
        let flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC
        var descriptor = open(path, flags, 0o644)
        if descriptor < 0, errno == ENOENT {
            // The folder could not be created when the job was started.
            let folder = (path as NSString).deletingLastPathComponent
            try? FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
            descriptor = open(path, flags, 0o644)
        }
        guard descriptor >= 0 else { return nil }
        let file = FileHandle(fileDescriptor: descriptor, closeOnDealloc: true)
        files.append((path, file))
        if files.count > limit { files.removeFirst() }
        return file
    }
}
