import Checkpointing
import Foundation
import Support

/// The state of a job, stored as `status.json` in the run folder. The launcher and `disttrain status` (on any
/// machine) read it, and it helps to diagnose a failure. Rank 0's watcher thread replaces the file about once
/// a second.
package struct JobStatus: Codable, Sendable, Equatable {
    package enum State: String, Codable, Sendable {
        case running, finished
        /// Ended early with a checkpoint; running the same command again resumes the run.
        case stopped
        case failed
    }

    package var state: State
    /// Identifies this start of the run; assigned by the launcher.
    package var attempt: String
    /// Incremented each time the file is written, so that a reader with a different clock can detect updates.
    package var beat: Int
    /// `startedAt` and `updatedAt` are seconds since 1970 by rank 0's clock.
    package var startedAt: Double
    package var updatedAt: Double
    package var name: String
    package var steps: Int
    package var progress: Progress?
    /// Step of the newest checkpoint.
    package var checkpointStep: Int?
    /// Why checkpoints currently cannot be saved; nil if they can. Training continues meanwhile.
    package var alarm: String?
    package var ranks: [JobWatch.Member]
    package var slowestHost: String?
    /// Working time per step of the slowest host's rank, divided by that of the median rank.
    package var slowestRatio: Double?
    /// Set when the job has ended: the exit status and the reason.
    package var exitStatus: Int32?
    package var message: String?
    package var missing: [Int]?

    /// Values of the last logged step.
    package struct Progress: Codable, Sendable, Equatable {
        package var step: Int
        package var loss: Double
        package var learningRate: Double
        package var imagesPerSecond: Double
        package var stepSeconds: Double
        /// Estimated seconds to the end of training, including samples and checkpoints.
        package var remainingSeconds: Double?

        /// The fields of the progress line, for a run of `steps` updates; `TrainingProgress` prints the same
        /// ones.
        package func fields(of steps: Int) -> [String] {
            let digits = String(step)
            let padded = String(repeating: " ", count: max(0, String(steps).count - digits.count)) + digits
            var fields = [
                "step \(padded)/\(steps)", String(format: "loss %.4f", loss),
                String(format: "lr %.1e", learningRate), String(format: "%.1f images/s", imagesPerSecond),
            ]
            if step < steps, let remainingSeconds { fields.append("ETA \(duration(remainingSeconds))") }
            return fields
        }
    }

    package static let fileName = RunFolder.statusName

    /// Returns nil if the file does not exist or cannot be decoded.
    package static func read(_ run: String) -> JobStatus? {
        guard
            let data = FileManager.default.contents(
                atPath: (run as NSString).appendingPathComponent(fileName))
        else { return nil }
        let decoder = JSONDecoder()
        decoder.nonConformingFloatDecodingStrategy = .convertFromString(
            positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
        return try? decoder.decode(JobStatus.self, from: data)
    }

    /// Replaces the file.
    ///
    /// - Returns: the reason if the file could not be written; nil on success.
    func write(_ run: String) -> String? {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        encoder.nonConformingFloatEncodingStrategy = .convertToString(
            positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
        guard let data = try? encoder.encode(self) else { return "it cannot be encoded" }
        let path = (run as NSString).appendingPathComponent(Self.fileName)
        do throws(FileError) {
            try AtomicFile.write(Array(data), to: path, isDurable: false)
            return nil
        } catch {
            return error.detail
        }
    }
}
