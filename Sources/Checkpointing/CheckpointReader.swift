import Foundation
import Support

/// A file of a checkpoint, opened for reading at arbitrary offsets.
///
/// Uses `pread` instead of a memory map: a truncated file or a failing disk is then reported as an error,
/// after which an older checkpoint can be used, and not as a signal that ends the run. Symbolic links are not
/// followed, since a checkpoint contains its own data.
final class CheckpointReader {
    let path: String
    let size: Int
    private let descriptor: Int32
    /// Buffer for checksums; allocated on first use.
    private var buffer: UnsafeMutableRawBufferPointer?
    /// Small enough to fit into a core's cache.
    private static let pieceBytes = 1 << 20

    /// - Parameter expected: the size according to the manifest.
    init(_ path: String, expected: Int? = nil) throws(CheckpointError) {
        // With O_NONBLOCK, opening a FIFO in place of the file does not block until a writer appears.
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
        guard descriptor >= 0 else {
            switch errno {
            case ENOENT: throw CheckpointError(.damaged, path, "does not exist")
            case ELOOP: throw CheckpointError(.damaged, path, "is a symbolic link, expected a file")
            default: throw CheckpointError.system(path, "cannot be opened")
            }
        }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else {
            let problem = CheckpointError.system(path, "cannot be examined")
            close(descriptor)
            throw problem
        }
        guard status.st_mode & S_IFMT == S_IFREG else {
            close(descriptor)
            throw CheckpointError(.damaged, path, "is not a file")
        }
        self.path = path
        size = Int(status.st_size)
        self.descriptor = descriptor
        if let expected, size != expected {
            throw CheckpointError(.damaged, path, "is \(size) bytes, expected \(expected); truncated?")
        }
    }

    deinit {
        close(descriptor)
        buffer?.deallocate()
    }

    /// Fills `bytes` with the data at `offset`.
    func read(at offset: Int, into bytes: UnsafeMutableRawBufferPointer) throws(CheckpointError) {
        var filled = 0
        while filled < bytes.count {
            let count = min(bytes.count - filled, StorageProgress.pieceBytes)
            let got = pread(descriptor, bytes.baseAddress! + filled, count, off_t(offset + filled))
            if got < 0 && errno == EINTR { continue }
            guard got >= 0 else {
                throw CheckpointError.system(path, "reading failed")
            }
            guard got > 0 else {
                throw CheckpointError(
                    .damaged, path,
                    "ends at byte \(offset + filled), expected \(offset + bytes.count); truncated?")
            }
            filled += got
            StorageProgress.advance()
        }
    }

    /// Calls `body` with the bytes of a range, one chunk at a time.
    func forEachPiece(
        of range: Range<Int>, _ body: (UnsafeRawBufferPointer) throws(CheckpointError) -> Void
    ) throws(CheckpointError) {
        let piece = buffer ?? .allocate(byteCount: Self.pieceBytes, alignment: 64)
        buffer = piece
        var offset = range.lowerBound
        while offset < range.upperBound {
            let part = UnsafeMutableRawBufferPointer(
                rebasing: piece[..<min(piece.count, range.upperBound - offset)])
            try read(at: offset, into: part)
            try body(UnsafeRawBufferPointer(part))
            offset += part.count
        }
    }

    func checksum(of range: Range<Int>) throws(CheckpointError) -> CRC32C {
        var checksum = CRC32C()
        try forEachPiece(of: range) { checksum.update($0) }
        return checksum
    }

    /// Reads a small file completely.
    func readAll(limit: Int) throws(CheckpointError) -> [UInt8] {
        guard size <= limit else {
            throw CheckpointError(.damaged, path, "is \(size) bytes, expected \(limit) at most")
        }
        return try read(0..<size)
    }

    func read(_ range: Range<Int>) throws(CheckpointError) -> [UInt8] {
        var bytes = [UInt8]()
        bytes.reserveCapacity(range.count)
        try forEachPiece(of: range) { bytes.append(contentsOf: $0) }
        return bytes
    }
}
