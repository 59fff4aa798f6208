import Foundation
import LDMModel

/// A file that grows by whole records, of which it never holds half. For one rank.
///
/// A record that cannot be written, on a full disk say, is reported and does not stop a training of days; what was
/// written of it is taken back.
public final class AppendedFile {
    public let path: String
    /// Bytes of whole records.
    public private(set) var size: Int
    /// Records that could not be written.
    public private(set) var lost = 0

    private let descriptor: Int32
    /// What a record is called.
    private let noun: String
    private var isFailing = false
    private let onProblem: (String) -> Void

    /// Opens the file as it is, or makes an empty one.
    ///
    /// - Parameters:
    ///   - noun: what a record is called in messages, such as "line".
    ///   - onProblem: told of records that could not be written, once a series.
    public init(path: String, noun: String, onProblem: @escaping (String) -> Void) throws(FileError) {
        self.path = path
        self.noun = noun
        self.onProblem = onProblem
        // Without O_NONBLOCK, opening a pipe that stands in the file's place would wait for a reader.
        descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0o644)
        guard descriptor >= 0 else {
            throw FileError(path, "cannot be opened for writing: \(systemReason())", code: errno)
        }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            close(descriptor)
            throw FileError(path, "is not a file")
        }
        size = Int(status.st_size)
    }

    deinit { close(descriptor) }

    /// The bytes from `offset` on; fewer than `count` at the end of the file.
    public func read(at offset: Int, count: Int) throws(FileError) -> [UInt8] {
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

    /// Makes the file shorter. One change of its length, which happens whole or not at all, and is on the disk when
    /// this returns: a curve that goes on from here never forks.
    public func cut(to size: Int) throws(FileError) {
        guard ftruncate(descriptor, off_t(size)) == 0, fsync(descriptor) == 0 else {
            throw FileError(path, "cannot be cut back to the resumed step: \(systemReason())", code: errno)
        }
        self.size = size
    }

    /// - Returns: whether the record is in the file.
    @discardableResult
    public func append(_ record: [UInt8]) -> Bool {
        var written = 0
        while written < record.count {
            let count = record[written...].withUnsafeBytes {
                pwrite(descriptor, $0.baseAddress, $0.count, off_t(size + written))
            }
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else {
                let reason = systemReason()
                // Also without room, a file can be made shorter.
                _ = ftruncate(descriptor, off_t(size))
                lose(reason)
                return false
            }
            written += count
        }
        size += record.count
        if isFailing {
            isFailing = false
            onProblem("\(path): can be written again; \(lost) \(noun)s were lost so far")
        }
        return true
    }

    /// Tells of a record that could not even be made.
    public func lose(_ reason: String) {
        lost += 1
        if !isFailing { onProblem("\(path): a \(noun) could not be written and is lost: \(reason)") }
        isFailing = true
    }

    /// Waits until all records are on the disk.
    public func synchronize() {
        if fdatasync(descriptor) == 0 { return }
        onProblem("\(path): may lack \(noun)s after a power cut: \(systemReason())")
    }
}
