import Foundation

/// An append-only file of complete records; a partially written record is truncated away. Used by one rank,
/// from any of its threads.
///
/// A failed write, for example on a full disk, is reported but does not stop training: the record stays in
/// memory and is written before the next one. Records since the last `commit` also stay in memory, because
/// after a failed fsync the kernel may have discarded their pages.
package final class AppendedFile: @unchecked Sendable {
    // Unchecked: `lock` guards `state`; `onProblem` is only called by `append`, `lose` and `synchronize`.
    package let path: String
    /// Size in bytes of all complete records, including those still in memory.
    package var size: Int { withLock { $0.size } }
    /// Number of lost records: those that exceeded the memory limit or could not be encoded.
    package var lost: Int { withLock { $0.lost } }

    /// The word for a record in messages, such as "line".
    private let noun: String
    private let onProblem: (String) -> Void
    private let lock = NSLock()
    private var state: State

    /// Limit on unwritten records in memory, in bytes; further records are lost.
    private static let mostUnwritten = 64 << 20
    /// Limit on written but uncommitted records in memory, in bytes.
    private static let mostUncommitted = 16 << 20

    private struct State {
        var descriptor: Int32
        /// Bytes that precede `tail` in the file; no copy of them is kept in memory.
        var committed: Int
        /// The records after `committed`.
        var tail: [UInt8] = []
        /// Number of bytes of `tail` that have been written to the file.
        var written = 0
        var lost = 0
        var isFailing = false

        var size: Int { committed + tail.count }
    }

    private func withLock<Result>(_ body: (inout State) -> Result) -> Result {
        lock.lock()
        defer { lock.unlock() }
        return body(&state)
    }

    /// Opens an existing file, or creates an empty one.
    ///
    /// - Parameters:
    ///   - noun: the word for a record in messages, such as "line".
    ///   - onProblem: called with a message when records cannot be written, once per series of failures.
    package init(path: String, noun: String, onProblem: @escaping (String) -> Void) throws(FileError) {
        (self.path, self.noun, self.onProblem) = (path, noun, onProblem)
        let descriptor = Self.open(path)
        guard descriptor >= 0 else {
            let code = errno
            throw FileError(path, "cannot be opened for writing: \(systemReason(code))", code: code)
        }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            close(descriptor)
            throw FileError(path, "is not a file")
        }
        state = State(descriptor: descriptor, committed: Int(status.st_size))
    }

    private static func open(_ path: String) -> Int32 {
        // Without O_NONBLOCK, opening a pipe at this path would block until it has a reader.
        Glibc.open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0o644)
    }

    deinit { close(state.descriptor) }

    /// Returns the bytes from `offset`; fewer than `count` at the end of the file. Only valid before the
    /// first append.
    package func read(at offset: Int, count: Int) throws(FileError) -> [UInt8] {
        let (descriptor, size) = withLock { ($0.descriptor, $0.committed) }
        var bytes = [UInt8](repeating: 0, count: max(0, min(count, size - offset)))
        var filled = 0
        while filled < bytes.count {
            let got = bytes.withUnsafeMutableBytes {
                pread(descriptor, $0.baseAddress! + filled, $0.count - filled, off_t(offset + filled))
            }
            if got < 0 && errno == EINTR { continue }
            guard got > 0 else {
                let code = got < 0 ? errno : 0
                throw FileError(
                    path, got < 0 ? "reading failed: \(systemReason(code))" : "became shorter", code: code)
            }
            filled += got
        }
        return bytes
    }

    /// Truncates the file, before the first append, so that a resumed run continues its curve from here
    /// without duplicate steps. The truncation is atomic and durable when this returns.
    package func cut(to size: Int) throws(FileError) {
        let code = withLock { state -> Int32 in
            guard ftruncate(state.descriptor, off_t(size)) == 0, fsync(state.descriptor) == 0 else {
                return errno
            }
            (state.committed, state.tail, state.written) = (size, [], 0)
            return 0
        }
        guard code == 0 else {
            throw FileError(path, "cannot be cut back to the resumed step: \(systemReason(code))", code: code)
        }
    }

    /// Appends a record.
    ///
    /// - Returns: false if the record is lost.
    @discardableResult
    package func append(_ record: [UInt8]) -> Bool {
        let (isKept, code) = withLock { state -> (Bool, Int32) in
            guard state.tail.count - state.written + record.count <= Self.mostUnwritten else {
                return (false, ENOSPC)
            }
            state.tail += record
            let code = Self.write(&state)
            if code == 0, state.tail.count > Self.mostUncommitted { Self.forget(&state) }
            return (true, code)
        }
        if isKept {
            report(code)
        } else {
            lose("\(Self.mostUnwritten >> 20) MiB are already waiting to be written")
        }
        return isKept
    }

    /// Reports and counts a record that could not be encoded.
    package func lose(_ reason: String) {
        let isFirst = withLock { state in
            state.lost += 1
            return state.lost == 1
        }
        if isFirst { onProblem("\(path): a \(noun) is lost: \(reason)") }
    }

    /// Tries to make all records durable; a failure is reported once per series.
    package func synchronize() { report(commitRecords()) }

    /// Waits until all records are durable. Safe to call from any thread.
    package func commit() throws(FileError) {
        let code = commitRecords()
        guard code == 0 else {
            throw FileError(path, "cannot be written: \(systemReason(code))", code: code)
        }
    }

    private func commitRecords() -> Int32 {
        withLock { state in
            let code = Self.write(&state)
            guard code == 0 else { return code }
            guard fdatasync(state.descriptor) == 0 else {
                let code = errno
                // After a failed fsync the kernel may have dropped dirty pages: reopen the file and write all
                // of `tail` again.
                let again = Self.open(path)
                if again >= 0 {
                    close(state.descriptor)
                    state.descriptor = again
                }
                state.written = 0
                return code
            }
            Self.forget(&state)
            return 0
        }
    }

    /// Drops the in-memory copy of records that are in the file.
    private static func forget(_ state: inout State) {
        state.committed += state.tail.count
        (state.tail, state.written) = ([], 0)
    }

    /// Writes the part of `tail` that is not in the file yet.
    ///
    /// - Returns: 0, or an `errno` value; on failure the file is truncated to its previous size.
    private static func write(_ state: inout State) -> Int32 {
        let start = state.written
        while state.written < state.tail.count {
            let count = state.tail[state.written...].withUnsafeBytes {
                pwrite(state.descriptor, $0.baseAddress, $0.count, off_t(state.committed + state.written))
            }
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else {
                let code = count < 0 ? errno : ENOSPC
                // Truncation succeeds even when the disk is full.
                _ = ftruncate(state.descriptor, off_t(state.committed + start))
                state.written = start
                return code
            }
            state.written += count
        }
        return 0
    }

    private func report(_ code: Int32) {
        let isNews = withLock { state in
            defer { state.isFailing = code != 0 }
            return state.isFailing != (code != 0)
        }
        guard isNews else { return }
        onProblem(
            code == 0
                ? "\(path): can be written again; nothing was lost"
                : "Warning: \(path): \(noun)s cannot be written and are kept in memory, training continues: "
                    + systemReason(code))
    }
}
