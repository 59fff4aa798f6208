import Foundation
import Support

/// A file of a checkpoint, open for reading at any place.
///
/// `pread` and not a memory map: a file that shrinks or a disk that fails is then an error that an older checkpoint
/// can mend, and not a signal that ends the run. Links are not followed, since a checkpoint holds its own bytes.
final class CheckpointReader {
    let path: String
    let size: Int
    private let descriptor: Int32
    /// What sums go through; made when it is first wanted.
    private var buffer: UnsafeMutableRawBufferPointer?
    /// Small enough to stay in a core's cache.
    private static let pieceBytes = 1 << 20

    /// - Parameter expected: its size by the manifest.
    init(_ path: String, expected: Int? = nil) throws(CheckpointError) {
        // Without O_NONBLOCK, opening a pipe that stands in a file's place would wait for a writer.
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
        guard descriptor >= 0 else {
            switch errno {
            case ENOENT: throw CheckpointError(.damaged, path, "is not there")
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
            throw CheckpointError(.damaged, path, "is \(size) bytes, expected \(expected); cut short?")
        }
    }

    deinit {
        close(descriptor)
        buffer?.deallocate()
    }

    /// Fills `bytes` from `offset`.
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
                    "ends at byte \(offset + filled), expected \(offset + bytes.count); cut short?")
            }
            filled += got
            StorageProgress.advance()
        }
    }

    /// Calls `body` with the bytes of a range, a piece at a time.
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

    /// A small file whole.
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
