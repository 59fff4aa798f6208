import Foundation

/// `RUN/.lock`: a file for each holder of the run's folder, numbered in order.
///
/// The file with the highest number is the lock; who makes the next one has it. A number is made once, by an
/// exclusive create that the file server decides, so of many that see a dead owner one succeeds; there is no moment
/// without a lock, and none at which a lock that somebody just took could be taken away by mistake. Older files are
/// deleted when a newer one is there, the newest never, so that numbers only grow.
package struct RunLockFolder: Sendable, Equatable {
    package let path: String

    package static let name = ".lock"

    package init(run: String) { path = (run as NSString).appendingPathComponent(Self.name) }

    package func file(_ number: Int) -> String { "\(path)/\(number).json" }

    /// The numbers in use, ascending; none where there is no folder.
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

    /// The bytes of a lock file; nil where it is gone. Opened anew each time, which makes a network file system ask
    /// its server.
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

    /// Makes the lock file of a number with a record in it.
    ///
    /// - Returns: the open file; nil where somebody else has made it or a later one.
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
        // Whoever was stopped since it saw the lock before may have made the file of a number that others have used
        // and deleted since.
        guard let found = try? numbers(), found.last == number else {
            close(descriptor)
            unlink(file(number))
            return nil
        }
        for older in found.dropLast() { unlink(file(older)) }
        return descriptor
    }

    /// Writes a record in place, on the disk when this returns. False, and errno tells why, where that fails.
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
        // Some file systems know no fsync of folders.
        return fsync(descriptor) == 0 || errno == EINVAL || errno == ENOTSUP
    }

    private func cannotBeWritten() -> RunLockError {
        RunLockError(
            path: (path as NSString).deletingLastPathComponent,
            detail: "cannot be written: \(systemReason())", code: errno
        )
    }
}
