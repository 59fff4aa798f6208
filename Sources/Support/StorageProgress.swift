import Synchronization

/// Counts pieces of files that this process has read or written, on any thread: the sign of progress of whatever waits
/// for a disk.
package enum StorageProgress {
    private static let count = Atomic<Int>(0)

    /// Bytes after which a reader or writer of a large file should report.
    package static let pieceBytes = 1 << 24

    /// Called when a piece, or a file that is small, has been read or written.
    package static func advance() { count.wrappingAdd(1, ordering: .relaxed) }

    package static var pieces: Int { count.load(ordering: .relaxed) }
}
