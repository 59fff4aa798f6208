import Synchronization

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
