import Foundation
import Synchronization

/// A failed file operation. Its message is one line with the file, the operation and the reason.
package struct FileError: ReportableError, Equatable, Sendable {
    package var path: String
    /// The operation and the system's error text, without the path.
    package var detail: String
    /// The `errno` of the operation; 0 for any other reason.
    package var code: Int32

    package init(_ path: String, _ detail: String, code: Int32 = 0) {
        (self.path, self.detail, self.code) = (path, detail, code)
    }

    package var message: String { "\(path): \(detail)".oneLine() }
    package var exitStatus: Int32 { ExitStatus.forSystemError(code, otherwise: ExitStatus.refused) }

    /// Creates an error from `errno`; call it before anything else can overwrite `errno`.
    package static func system(_ path: String, _ operation: String, code: Int32 = errno) -> FileError {
        FileError(path, "\(operation): \(String(cString: strerror(code)))", code: code)
    }

    /// The error for a path that is not a regular file.
    static func unexpectedKind(_ path: String, _ mode: mode_t) -> FileError {
        let kind =
            switch mode & S_IFMT {
            case S_IFDIR: "a folder"
            case S_IFIFO: "a pipe"
            case S_IFSOCK: "a socket"
            case S_IFCHR, S_IFBLK: "a device"
            default: "not a file"
            }
        return FileError(path, "is \(kind), expected a regular file")
    }
}

/// An open file descriptor, closed exactly once.
package struct FileHandleDescriptor: ~Copyable {
    package let descriptor: Int32
    let path: String

    package init(path: String, flags: Int32, mode: mode_t = 0o644) throws(FileError) {
        // Without O_NONBLOCK, opening a pipe at this path would block until it has a writer.
        descriptor = open(path, flags | O_CLOEXEC | O_NONBLOCK, mode)
        self.path = path
        if descriptor < 0 {
            let code = errno
            var status = stat()
            // Sockets, and devices without a driver. For a regular file these codes are storage faults.
            if code == ENXIO || code == ENODEV, stat(path, &status) == 0, status.st_mode & S_IFMT != S_IFREG {
                throw .unexpectedKind(path, status.st_mode)
            }
            throw .system(
                path, flags & (O_WRONLY | O_RDWR) != 0 ? "cannot be opened for writing" : "cannot be opened",
                code: code)
        }
    }

    /// Takes ownership of an open descriptor.
    package init(adopting descriptor: Int32, path: String) {
        (self.descriptor, self.path) = (descriptor, path)
    }

    deinit { _ = close(descriptor) }

    /// Size in bytes; throws for folders, pipes, sockets and devices.
    func regularFileSize() throws(FileError) -> Int { Int(try regularFileStatus().st_size) }

    func regularFileStatus() throws(FileError) -> stat {
        var status = stat()
        if fstat(descriptor, &status) != 0 { throw .system(path, "cannot be examined") }
        guard status.st_mode & S_IFMT == S_IFREG else { throw .unexpectedKind(path, status.st_mode) }
        return status
    }

    /// Writes all bytes, in as many calls as necessary.
    ///
    /// For a large file, all but the last 16 pieces are durable when this returns. This keeps the final fsync
    /// short, and makes `StorageProgress` reflect the disk rather than the page cache.
    package func write(_ bytes: UnsafeRawBufferPointer) throws(FileError) {
        var rest = bytes[...]
        while !rest.isEmpty {
            let slice = UnsafeRawBufferPointer(rebasing: rest)
            let written = Foundation.write(descriptor, slice.baseAddress, min(slice.count, Self.piece))
            if written < 0 {
                if errno == EINTR { continue }
                throw .system(path, "writing failed")
            }
            rest = rest.dropFirst(written)
            let end = Int(lseek(descriptor, 0, SEEK_CUR))
            // Start writeback while further bytes are written. This is a hint; some file systems ignore it.
            if Self.hasPassed(Self.piece, end, written) { startWriting() }
            if Self.hasPassed(Self.unwritten, end, written) { try synchronizeData() }
            StorageProgress.advance()
        }
    }

    /// Bytes per write call. Linux writes at most 2 GB in one call.
    private static let piece = StorageProgress.pieceBytes
    /// Limit on written bytes that are not yet durable.
    private static let unwritten = 16 * piece

    /// Whether the `count` bytes before `end` cross a multiple of `size`.
    private static func hasPassed(_ size: Int, _ end: Int, _ count: Int) -> Bool {
        end >= count && end / size != (end - count) / size
    }

    /// Starts writeback: for POSIX_FADV_DONTNEED, Linux first writes the dirty pages.
    private func startWriting() { _ = posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED) }

    private func synchronizeData() throws(FileError) {
        if fdatasync(descriptor) != 0 { throw .system(path, "fdatasync failed") }
    }

    /// Waits until the file's bytes are durable.
    package func synchronize() throws(FileError) {
        // Do not retry a failed fsync: the kernel may have dropped the bytes.
        if fsync(descriptor) != 0 { throw .system(path, "fsync failed") }
        StorageProgress.advance()
    }
}

extension String {
    /// Whether this is a single path component. A name from a file must not refer to another folder.
    package var isPlainFileName: Bool {
        // Compare bytes: "/" followed by a combining accent is one `Character` that is not equal to "/".
        !isEmpty && self != "." && self != ".." && !utf8.contains { $0 == UInt8(ascii: "/") || $0 == 0 }
    }
}

/// Reads a whole small file; throws if it has more than `limit` bytes.
package func readWholeFile(_ path: String, limit: Int) throws(FileError) -> [UInt8] {
    let file = try FileHandleDescriptor(path: path, flags: O_RDONLY)
    let size = try file.regularFileSize()
    if size > limit { throw FileError(path, "is \(size) bytes, expected \(limit) at most") }
    var bytes = [UInt8](repeating: 0, count: size)
    var filled = 0
    while filled < size {
        let count = bytes.withUnsafeMutableBytes {
            Foundation.read(file.descriptor, $0.baseAddress! + filled, size - filled)
        }
        if count < 0 {
            if errno == EINTR { continue }
            throw .system(path, "reading failed")
        }
        if count == 0 { throw FileError(path, "became shorter while it was read") }
        filled += count
        StorageProgress.advance()
    }
    return bytes
}

/// How a new file gets its name.
package enum FileCreation: Sendable {
    /// Written under a temporary name and renamed when complete; replaces an existing file of that name.
    case replacing
    /// Written directly under its name, which must not exist. For a folder that is not read before all of it
    /// is durable; the caller synchronizes the folder's own entry.
    case fresh
}

/// Writes files atomically: after a power failure a file is either absent (or its old version) or complete.
package enum AtomicFile {
    /// The path to write to before the rename, in the same folder so that the rename is atomic.
    package static func temporaryPath(for path: String) -> String {
        path + temporarySuffix + String(getpid())
    }

    /// Separates the file name from the writer's process ID in a temporary name.
    package static let temporarySuffix = ".partial-"

    /// Writes a file, replacing an earlier one as a whole.
    ///
    /// - Parameter isDurable: wait until its bytes and its name are on the disk. A file that is only for monitoring
    ///   may be lost in a power failure.
    package static func write(_ bytes: [UInt8], to path: String, isDurable: Bool = true) throws(FileError) {
        let temporary = temporaryPath(for: path)
        do {
            let file = try FileHandleDescriptor(path: temporary, flags: O_WRONLY | O_CREAT | O_TRUNC)
            // `withUnsafeBytes` does not support typed throws yet.
            let result = bytes.withUnsafeBytes { raw -> Result<Void, FileError> in
                do throws(FileError) { return .success(try file.write(raw)) } catch { return .failure(error) }
            }
            try result.get()
            if isDurable { try file.synchronize() }
        } catch {
            unlink(temporary)
            throw FileError(path, error.detail, code: error.code)
        }
        try commit(temporary, to: path, isDurable: isDurable)
    }

    /// Creates a file that must not exist and waits until its bytes, but not its name, are durable.
    package static func writeFresh(_ bytes: [UInt8], to path: String) throws(FileError) {
        let file = try FileHandleDescriptor(path: path, flags: O_WRONLY | O_CREAT | O_EXCL)
        let result = bytes.withUnsafeBytes { raw in
            Result { () throws(FileError) in try file.write(raw) }
        }
        try result.get()
        try file.synchronize()
    }

    /// Renames a finished, synchronized file to its final name, and waits until the name is durable.
    package static func commit(
        _ temporary: String, to path: String, isDurable: Bool = true
    ) throws(FileError) {
        if rename(temporary, path) != 0 {
            let error = FileError.system(path, "cannot be renamed from \(temporary)")
            unlink(temporary)
            throw error
        }
        if isDurable { try synchronizeFolder(of: path) }
    }

    /// Waits until the entries of the folder that holds `path` are durable.
    package static func synchronizeFolder(of path: String) throws(FileError) {
        let folder = (path as NSString).deletingLastPathComponent
        let handle = try FileHandleDescriptor(
            path: folder.isEmpty ? "." : folder, flags: O_RDONLY | O_DIRECTORY)
        // Some file systems (FUSE, some network mounts) do not support fsync of folders.
        if fsync(handle.descriptor) != 0, errno != EINVAL, errno != ENOTSUP {
            throw .system(handle.path, "fsync failed")
        }
    }
}

/// Creates the output folder of a command.
package func makeOutputFolder(_ path: String) throws(RunError) {
    do {
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    } catch {
        throw RunError(
            "\(path): cannot be created (\(systemReason(of: error))); choose another --output",
            exitStatus: ExitStatus.forSystemError(systemCode(of: error), otherwise: ExitStatus.usage))
    }
}

/// Creates a folder and its missing parents.
package func makeFolder(_ path: String) throws(FileError) {
    do {
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    } catch {
        throw FileError(path, "cannot be created: \(systemReason(of: error))", code: systemCode(of: error))
    }
}

/// Counts the file pieces that this process has read or written, on any thread. An increasing count shows
/// that a thread waiting for a disk makes progress.
package enum StorageProgress {
    private static let count = Atomic<Int>(0)

    /// Bytes after which a reader or writer of a large file calls `advance`.
    package static let pieceBytes = 1 << 24

    /// Call after reading or writing a piece or a small file.
    package static func advance() { count.wrappingAdd(1, ordering: .relaxed) }

    package static var pieces: Int { count.load(ordering: .relaxed) }
}
