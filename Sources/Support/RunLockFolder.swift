import Foundation

/// `RUN/.lock`: one numbered file for each successive holder of the run's folder.
///
/// The file with the highest number is the lock; the process that creates the next one takes the lock. An
/// exclusive create on the file server guarantees that each number is created once, so exactly one of several
/// processes that detect a dead owner succeeds. At no time is the folder unlocked, and a lock that was just
/// taken cannot be removed by mistake. A new holder deletes older files but the newest file is never deleted,
/// so numbers only increase.
package struct RunLockFolder: Sendable, Equatable {
    package let path: String

    package static let name = ".lock"

    package init(run: String) { path = (run as NSString).appendingPathComponent(Self.name) }

    package func file(_ number: Int) -> String { "\(path)/\(number).json" }

    /// The numbers in use, ascending; empty if there is no folder.
    package func numbers() throws(RunLockError) -> [Int] {
        guard let folder = opendir(path) else {
            if errno == ENOENT { return [] }
            throw RunLockError(path: path, detail: "cannot be listed: \(systemReason())", code: errno)
        }
        defer { closedir(folder) }
        var numbers: [Int] = []
        while true {
            errno = 0
            guard let entry = readdir(folder) else { break }
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name.hasSuffix(".json"), let number = Int(name.dropLast(5)), number > 0 {
                numbers.append(number)
            }
        }
        guard errno == 0 else {
            throw RunLockError(path: path, detail: "cannot be listed: \(systemReason())", code: errno)
        }
        return numbers.sorted()
    }

    /// The bytes of a lock file; nil if it no longer exists. Reopening the file each time makes a network
    /// file system revalidate its cache with the server.
    package func read(_ number: Int) throws(RunLockError) -> [UInt8]? {
        let descriptor = open(file(number), O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else {
            if errno == ENOENT || errno == ESTALE { return nil }
            throw RunLockError(path: file(number), detail: "cannot be opened: \(systemReason())", code: errno)
        }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = bytes.withUnsafeMutableBytes { pread(descriptor, $0.baseAddress, $0.count, 0) }
        guard count >= 0 else {
            if errno == ESTALE { return nil }
            throw RunLockError(path: file(number), detail: "cannot be read: \(systemReason())", code: errno)
        }
        return Array(bytes.prefix(count))
    }

    /// Creates the lock file of a number and writes a record to it.
    ///
    /// - Returns: the open descriptor; nil if another process has created this file or a later one.
    func create(_ number: Int, _ record: RunLockRecord) throws(RunLockError) -> Int32? {
        if mkdir(path, 0o755) != 0, errno != EEXIST { throw cannotBeWritten() }
        let descriptor = open(file(number), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else {
            if errno == EEXIST { return nil }
            throw cannotBeWritten()
        }
        guard Self.write(record, to: descriptor), Self.synchronize(path) else {
            let error = cannotBeWritten()
            close(descriptor)
            unlink(file(number))
            throw error
        }
        // A process that was suspended since it last listed the folder may have created a number that others
        // have used and deleted in the meantime.
        guard let found = try? numbers(), found.last == number else {
            close(descriptor)
            unlink(file(number))
            return nil
        }
        for older in found.dropLast() { unlink(file(older)) }
        return descriptor
    }

    /// Writes a record in place; it is durable when this returns. Returns false and sets errno on failure.
    static func write(_ record: RunLockRecord, to descriptor: Int32) -> Bool {
        let bytes = record.encoded()
        var written = 0
        while written < bytes.count {
            let count = bytes[written...].withUnsafeBytes {
                pwrite(descriptor, $0.baseAddress, $0.count, off_t(written))
            }
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { return false }
            written += count
        }
        return fdatasync(descriptor) == 0
    }

    private static func synchronize(_ folder: String) -> Bool {
        let descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        // Some file systems do not support fsync of folders.
        return fsync(descriptor) == 0 || errno == EINVAL || errno == ENOTSUP
    }

    private func cannotBeWritten() -> RunLockError {
        RunLockError(
            path: (path as NSString).deletingLastPathComponent,
            detail: "cannot be written: \(systemReason())", code: errno
        )
    }
}
