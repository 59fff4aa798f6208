import Communication
import Foundation
import Support

extension CheckpointBenchmark {
    /// What was measured, on all ranks together; the slowest rank's seconds.
    package struct Result: Sendable {
        package var ranks: Int
        package var sharding: Sharding
        /// Of the checkpoint, and of each rank's copy of its part.
        package var bytes: Int, snapshotBytes: Int
        /// The median step without a save.
        package var stepSeconds: Double
        /// How long training stops for a save.
        package var stallSeconds: Double
        /// Copying `snapshotBytes` alone.
        package var copySeconds: Double
        /// From the start of a save to its commit, while training goes on.
        package var saveSeconds: Double
        /// What the steps meanwhile took longer, the stall included.
        package var costSeconds: Double
        /// A save with nothing beside it, fsync included; the median of several, as all that follow.
        package var idleSaveSeconds: Double
        /// As many bytes from every rank into one file each, fsync included.
        package var plainSeconds: Double
        /// Verifying the checkpoint and reading each rank's part; its bytes are in the page cache.
        package var loadSeconds: Double
        /// The same of a checkpoint as another number of ranks would have written it, and that number.
        package var otherLoad: (ranks: Int, seconds: Double)?
        package var peakRSSMiB: Int

        /// Of training time, with a save every 100 steps.
        package var overheadOf100Steps: Double { costSeconds / (100 * stepSeconds) }
        /// Of what plain writing reaches.
        package var shareOfDisk: Double { plainSeconds / idleSaveSeconds }

        /// One line for programs.
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

        /// For people.
        package var table: String {
            func digits(_ value: Double, _ decimals: Int = 3) -> String {
                String(format: "%.\(decimals)f", value)
            }
            let speed = digits(Double(bytes) / idleSaveSeconds / 1e6, 0)
            var lines = [
                "\(digits(Double(bytes) / 1e6, 0)) MB from \(ranks) ranks, sharding \(sharding.rawValue); a rank's copy "
                    + "takes \(digits(Double(snapshotBytes) / 1e6, 0)) MB; \(peakRSSMiB) MiB peak a rank",
                "a step takes \(digits(stepSeconds)) s; a save stops it for \(digits(stallSeconds)) s, of which "
                    + "\(digits(copySeconds)) s are the copy, and is committed \(digits(saveSeconds)) s later",
                "it costs training \(digits(costSeconds)) s: \(digits(100 * overheadOf100Steps, 2)) % with a save "
                    + "every 100 steps",
                "alone a save takes \(digits(idleSaveSeconds)) s, \(speed) MB/s, "
                    + "\(digits(100 * shareOfDisk, 0)) % of plain writing with fsync (\(digits(plainSeconds)) s)",
                "verifying and loading it takes \(digits(loadSeconds)) s, out of the page cache",
            ]
            if let otherLoad {
                lines.append(
                    "as \(otherLoad.ranks) ranks would have written it, \(digits(otherLoad.seconds)) s")
            }
            return lines.joined(separator: "\n")
        }
    }
}
