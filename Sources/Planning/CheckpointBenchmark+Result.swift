import Checkpointing
import Communication
import Foundation
import Support

extension CheckpointBenchmark {
    /// The measurements of all ranks together; times are those of the slowest rank.
    package struct Result: Sendable {
        package var ranks: Int
        package var sharding: Sharding
        /// Size of the checkpoint, and of each rank's snapshot.
        package var bytes: Int, snapshotBytes: Int
        /// Median seconds of a step without a save.
        package var stepSeconds: Double
        /// Seconds that training stops for a save.
        package var stallSeconds: Double
        /// Seconds to copy `snapshotBytes` in memory.
        package var copySeconds: Double
        /// Seconds from the start of a save to its commit, while training continues.
        package var saveSeconds: Double
        /// Additional seconds of the steps during a save, including the stall.
        package var costSeconds: Double
        /// Seconds of a save without concurrent training, including fsync. This and the following times are
        /// medians of several repeats.
        package var idleSaveSeconds: Double
        /// Seconds to write the same number of bytes, one file per rank, including fsync.
        package var plainSeconds: Double
        /// Seconds to verify the checkpoint and to read each rank's part. Its bytes are in the page cache.
        package var loadSeconds: Double
        /// The load time of a checkpoint with the layout that another number of ranks would have written, and
        /// that number.
        package var otherLoad: (ranks: Int, seconds: Double)?
        package var peakRSSMiB: Int

        /// Fraction of the training time for a save every 100 steps.
        package var overheadOf100Steps: Double { costSeconds / (100 * stepSeconds) }
        /// Fraction of the throughput of the plain writer.
        package var shareOfDisk: Double { plainSeconds / idleSaveSeconds }

        /// One line of JSON.
        package var json: String {
            func rounded(_ value: Double) -> JSONValue { .number((value * 1e4).rounded() / 1e4) }
            var object: JSONObject = [
                "program": "disttrain", "ranks": .integer(ranks), "sharding": .string(sharding.rawValue),
                "bytes": .integer(bytes), "snapshot_bytes_per_rank": .integer(snapshotBytes),
                "seconds_per_step": rounded(stepSeconds), "stall_seconds": rounded(stallSeconds),
                "copy_seconds": rounded(copySeconds), "save_seconds_while_training": rounded(saveSeconds),
                "cost_seconds": rounded(costSeconds), "overhead_every_100_steps": rounded(overheadOf100Steps),
                "save_seconds": rounded(idleSaveSeconds), "plain_write_seconds": rounded(plainSeconds),
                "share_of_disk": rounded(shareOfDisk), "load_seconds": rounded(loadSeconds),
                "peak_rss_mib": .integer(peakRSSMiB),
            ]
            if let otherLoad {
                object["saved_by"] = .integer(otherLoad.ranks)
                object["load_other_seconds"] = rounded(otherLoad.seconds)
            }
            return (try? JSONValue.object(object).text()) ?? "null"
        }

        /// A table as text.
        package var table: String {
            func digits(_ value: Double, _ decimals: Int = 3) -> String {
                String(format: "%.\(decimals)f", value)
            }
            let speed = digits(Double(bytes) / idleSaveSeconds / 1e6, 0)
            var lines = [
                "\(digits(Double(bytes) / 1e6, 0)) MB from \(ranks) ranks, sharding \(sharding.rawValue); a rank's copy "
                    + "takes \(digits(Double(snapshotBytes) / 1e6, 0)) MB; \(peakRSSMiB) MiB peak per rank",
                "a step takes \(digits(stepSeconds)) s; a save stops it for \(digits(stallSeconds)) s, of which "
                    + "\(digits(copySeconds)) s are the copy, and commits \(digits(saveSeconds)) s later",
                "it costs training \(digits(costSeconds)) s: \(digits(100 * overheadOf100Steps, 2)) % with a save "
                    + "every 100 steps",
                "without training, a save takes \(digits(idleSaveSeconds)) s, \(speed) MB/s, "
                    + "\(digits(100 * shareOfDisk, 0)) % of plain writing with fsync (\(digits(plainSeconds)) s)",
                "verifying and loading it takes \(digits(loadSeconds)) s, from the page cache",
            ]
            if let otherLoad {
                lines.append(
                    "as \(otherLoad.ranks) ranks would have written it, \(digits(otherLoad.seconds)) s")
            }
            return lines.joined(separator: "\n")
        }
    }
}

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
