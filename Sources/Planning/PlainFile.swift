import Checkpointing
import Foundation
import Support

/// A plain writer as a baseline, equivalent to `dd bs=4M conv=fsync`.
enum PlainFile {
    /// Writes this number of bytes to a file that must not exist, calls fsync and removes the file.
    static func write(_ count: Int, to path: String) throws {
        let block = [UInt8](repeating: 0x5A, count: 1 << 22)
        let file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard file >= 0 else {
            throw CheckpointError.system(path, "cannot be created")
        }
        defer {
            close(file)
            unlink(path)
        }
        var rest = count
        while rest > 0 {
            let written = Foundation.write(file, block, min(rest, block.count))
            guard written > 0 else {
                throw CheckpointError.system(path, "cannot be written")
            }
            rest -= written
        }
        guard fsync(file) == 0 else {
            throw CheckpointError.system(path, "cannot be flushed")
        }
    }
}

/// The write throughput of a disk, including fsync.
package enum DiskSpeed {
    /// Throughput in bytes/s: the median of three files of 256 MiB in an existing folder.
    package static func measure(folder: String, bytes: Int = 256 << 20) throws -> Double {
        let seconds = try (0..<3).map { _ in
            let start = monotonicSeconds()
            try PlainFile.write(bytes, to: "\(folder)/.disttrain-plan-\(UInt32.random(in: 0...UInt32.max))")
            return monotonicSeconds() - start
        }
        return Double(bytes) / seconds.sorted()[1]
    }
}
