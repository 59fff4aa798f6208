import Foundation

/// A regular file that any number of threads can read at any position.
///
/// Reads use `pread` rather than mmap: if a mapped file is truncated or its disk fails, the process ends with
/// SIGBUS, whereas `pread` returns an error that can name the file.
package final class PositionedFile: Sendable {
    /// Identifies a file, to detect that another file now has the same name.
    package struct Identity: Equatable, Sendable {
        package let device: UInt64
        package let inode: UInt64
        package let size: Int
        fileprivate let modified: [Int]
    }

    package let path: String
    package let identity: Identity
    /// Size in bytes when the file was opened.
    package var size: Int { identity.size }
    private let file: FileHandleDescriptor

    package convenience init(_ path: String) throws(FileError) {
        try self.init(FileHandleDescriptor(path: path, flags: O_RDONLY))
    }

    /// Takes ownership of an open descriptor.
    ///
    /// - Parameter path: the name for error messages.
    package convenience init(adopting descriptor: Int32, path: String) throws(FileError) {
        try self.init(FileHandleDescriptor(adopting: descriptor, path: path))
    }

    private init(_ file: consuming FileHandleDescriptor) throws(FileError) {
        let status = try file.regularFileStatus()
        identity = Identity(
            device: UInt64(status.st_dev), inode: UInt64(status.st_ino), size: Int(status.st_size),
            modified: [Int(status.st_mtim.tv_sec), Int(status.st_mtim.tv_nsec)])
        path = file.path
        self.file = file
    }

    /// The descriptor number. Other processes on the host use it to open a file that has been unlinked.
    package var descriptor: Int32 { file.descriptor }

    /// Fills the buffer with the bytes from `offset`.
    package func read(at offset: Int, into buffer: UnsafeMutableRawBufferPointer) throws(FileError) {
        var filled = 0
        while filled < buffer.count {
            let got = pread(
                file.descriptor, buffer.baseAddress! + filled,
                min(buffer.count - filled, StorageProgress.pieceBytes), off_t(offset + filled))
            if got < 0 && errno == EINTR { continue }
            if got < 0 { throw .system(path, "cannot be read at byte \(offset + filled)") }
            if got == 0 {
                let present = try file.regularFileSize()
                throw FileError(
                    path,
                    "is \(present) bytes, expected at least \(offset + buffer.count): truncated while it was in use"
                )
            }
            filled += got
            StorageProgress.advance()
        }
    }

    /// Reads exactly `count` bytes from `offset`.
    package func read(at offset: Int, count: Int) throws(FileError) -> [UInt8] {
        var failure: FileError?
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
            do throws(FileError) {
                try read(
                    at: offset,
                    into: UnsafeMutableRawBufferPointer(
                        rebasing: UnsafeMutableRawBufferPointer(buffer)[..<count]))
                filled = count
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        return bytes
    }

    /// Calls `body` with the bytes of a range, in order and in pieces of at most 4 MiB.
    package func readPieces(
        of range: Range<Int>, _ body: (UnsafeRawBufferPointer) -> Void
    ) throws(FileError) {
        let buffer = UnsafeMutableRawBufferPointer.allocate(
            byteCount: min(range.count, Self.piece), alignment: 64)
        defer { buffer.deallocate() }
        for start in stride(from: range.lowerBound, to: range.upperBound, by: Self.piece) {
            let part = UnsafeMutableRawBufferPointer(
                rebasing: buffer[..<min(Self.piece, range.upperBound - start)])
            try read(at: start, into: part)
            body(UnsafeRawBufferPointer(part))
        }
    }

    private static let piece = 4 << 20

    /// Asks the kernel to read a range ahead. This is a hint; a failure is ignored.
    package func prefetch(_ range: Range<Int>) {
        _ = posix_fadvise(
            file.descriptor, off_t(range.lowerBound), off_t(range.count), POSIX_FADV_WILLNEED)
    }
}
