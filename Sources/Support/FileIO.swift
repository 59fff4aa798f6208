import Foundation

/// A failed file operation, in one line: what, which file, why.
package struct FileError: ReportableError, Equatable, Sendable {
    package var path: String
    /// The operation and the system's reason, without the path.
    package var detail: String
    /// The system's error number; 0 where the reason is another.
    package var code: Int32

    package init(_ path: String, _ detail: String, code: Int32 = 0) {
        (self.path, self.detail, self.code) = (path, detail, code)
    }

    package var message: String { "\(path): \(detail)".oneLine() }
    package var exitStatus: Int32 { ExitStatus.forSystemError(code, otherwise: ExitStatus.refused) }

    /// An error from `errno`, which must not have been overwritten since.
    package static func system(_ path: String, _ operation: String, code: Int32 = errno) -> FileError {
        FileError(path, "\(operation): \(String(cString: strerror(code)))", code: code)
    }

    /// Something else is in a file's place.
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
        // Without O_NONBLOCK, opening a pipe that stands in a file's place would wait for a writer.
        descriptor = open(path, flags | O_CLOEXEC | O_NONBLOCK, mode)
        self.path = path
        if descriptor < 0 {
            let code = errno
            var status = stat()
            // Sockets, and devices without a driver. Of a regular file these are faults of the storage.
            if code == ENXIO || code == ENODEV, stat(path, &status) == 0, status.st_mode & S_IFMT != S_IFREG {
                throw .unexpectedKind(path, status.st_mode)
            }
            throw .system(
                path, flags & (O_WRONLY | O_RDWR) != 0 ? "cannot be opened for writing" : "cannot be opened",
                code: code)
        }
    }

    /// Takes over an open descriptor.
    package init(adopting descriptor: Int32, path: String) {
        (self.descriptor, self.path) = (descriptor, path)
    }

    deinit { _ = close(descriptor) }

    /// Size in bytes; refuses folders, pipes, sockets and devices.
    func regularFileSize() throws(FileError) -> Int { Int(try regularFileStatus().st_size) }

    func regularFileStatus() throws(FileError) -> stat {
        var status = stat()
        if fstat(descriptor, &status) != 0 { throw .system(path, "cannot be examined") }
        guard status.st_mode & S_IFMT == S_IFREG else { throw .unexpectedKind(path, status.st_mode) }
        return status
    }

    /// Writes all bytes, however many calls that takes.
    ///
    /// Of a large file all but the last bytes are on the disk when this returns. So the final fsync is short, and
    /// `StorageProgress` shows what the disk takes, not what memory does.
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
            // The disk begins while more is written. Only a hint: some file systems do not know it.
            if Self.hasPassed(Self.piece, end, written) { startWriting() }
            if Self.hasPassed(Self.unwritten, end, written) { try synchronizeData() }
            StorageProgress.advance()
        }
    }

    /// Bytes of one call: a single one writes 2 GB at most on Linux.
    private static let piece = StorageProgress.pieceBytes
    /// Bytes that may be in memory and not yet on the disk.
    private static let unwritten = 16 * piece

    /// Whether the last `count` bytes before `end` have crossed a multiple of `size`.
    private static func hasPassed(_ size: Int, _ end: Int, _ count: Int) -> Bool {
        end >= count && end / size != (end - count) / size
    }

    /// Linux starts to write what it is told is not needed in memory.
    private func startWriting() { _ = posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED) }

    private func synchronizeData() throws(FileError) {
        if fdatasync(descriptor) != 0 { throw .system(path, "fdatasync failed") }
    }

    /// Waits until the file's bytes are on the disk.
    package func synchronize() throws(FileError) {
        // After a failed fsync the kernel may have dropped the bytes: never try again, report it.
        if fsync(descriptor) != 0 { throw .system(path, "fsync failed") }
        StorageProgress.advance()
    }
}

extension String {
    /// Whether this names a file in a folder, and is no path: what a file says must not reach into other folders.
    package var isPlainFileName: Bool {
        // Bytes, because "/" and an accent that follows it are one character, which is no "/".
        !isEmpty && self != "." && self != ".." && !utf8.contains { $0 == UInt8(ascii: "/") || $0 == 0 }
    }
}

/// Reads a small file whole, refusing more than `limit` bytes.
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

/// How a file comes to be.
package enum FileCreation: Sendable {
    /// Beside its name, which it takes when it is whole; an earlier file of that name is replaced.
    case replacing
    /// Under its name, which must be free: for a folder that nobody reads before all of it is on the disk. The
    /// folder's own entry is left to the caller to synchronize.
    case fresh
}

/// Files that are there whole or not at all, also after a power cut.
package enum AtomicFile {
    /// Where a file is written before it gets its name: in the same folder, so that the rename is atomic.
    package static func temporaryPath(for path: String) -> String {
        path + temporarySuffix + String(getpid())
    }

    /// Between a file's name and the number of the process that is writing it.
    package static let temporarySuffix = ".partial-"

    /// Writes a file and waits until it is on the disk under its name.
    package static func write(_ bytes: [UInt8], to path: String) throws(FileError) {
        let temporary = temporaryPath(for: path)
        do {
            let file = try FileHandleDescriptor(path: temporary, flags: O_WRONLY | O_CREAT | O_TRUNC)
            // Typed throws do not pass through withUnsafeBytes yet.
            let result = bytes.withUnsafeBytes { raw -> Result<Void, FileError> in
                do throws(FileError) { return .success(try file.write(raw)) } catch { return .failure(error) }
            }
            try result.get()
            try file.synchronize()
        } catch {
            unlink(temporary)
            throw FileError(path, error.detail, code: error.code)
        }
        try commit(temporary, to: path)
    }

    /// Writes a file under a name that must be free and waits until its bytes, though not its name, are on the disk.
    package static func writeFresh(_ bytes: [UInt8], to path: String) throws(FileError) {
        let file = try FileHandleDescriptor(path: path, flags: O_WRONLY | O_CREAT | O_EXCL)
        let result = bytes.withUnsafeBytes { raw in
            Result { () throws(FileError) in try file.write(raw) }
        }
        try result.get()
        try file.synchronize()
    }

    /// Gives a finished, synchronized file its name, and waits until the name is on the disk.
    package static func commit(_ temporary: String, to path: String) throws(FileError) {
        if rename(temporary, path) != 0 {
            let error = FileError.system(path, "cannot be renamed from \(temporary)")
            unlink(temporary)
            throw error
        }
        try synchronizeFolder(of: path)
    }

    /// Waits until the folder that holds `path` is on the disk with its names.
    package static func synchronizeFolder(of path: String) throws(FileError) {
        let folder = (path as NSString).deletingLastPathComponent
        let handle = try FileHandleDescriptor(
            path: folder.isEmpty ? "." : folder, flags: O_RDONLY | O_DIRECTORY)
        // Some file systems (FUSE, some network mounts) know no fsync of folders.
        if fsync(handle.descriptor) != 0, errno != EINVAL, errno != ENOTSUP {
            throw .system(handle.path, "fsync failed")
        }
    }
}
