import Checkpointing
import Foundation
import Support

/// How a job stands, in `status.json` of the run's folder: for the launcher, for `disttrain status` on any machine, and
/// for who looks after a failure. Rank 0's watching thread replaces it about once a second.
package struct JobStatus: Codable, Sendable, Equatable {
    package enum State: String, Codable, Sendable {
        case running, finished
        /// Ended early with a checkpoint: run it again.
        case stopped
        case failed
    }

    package var state: State
    /// Which start of the run, as the launcher named it.
    package var attempt: String
    /// Grows with every writing, for who has another clock.
    package var beat: Int
    /// Seconds since 1970, by rank 0's clock.
    package var startedAt: Double
    package var updatedAt: Double
    package var name: String
    package var steps: Int
    package var progress: Progress?
    /// The newest checkpoint's step.
    package var checkpointStep: Int?
    /// Why checkpoints cannot be saved at the moment; training continues meanwhile.
    package var alarm: String?
    package var ranks: [JobWatch.Member]
    package var slowestHost: String?
    /// How much longer than the median rank it works for a step.
    package var slowestRatio: Double?
    /// Where the job has ended: the exit code, and why.
    package var exitStatus: Int32?
    package var message: String?
    package var missing: [Int]?

    /// Of the last logged step.
    package struct Progress: Codable, Sendable, Equatable {
        package var step: Int
        package var loss: Double
        package var learningRate: Double
        package var imagesPerSecond: Double
        package var stepSeconds: Double
        /// Seconds to the last step, samples and checkpoints included.
        package var remainingSeconds: Double?

        /// As `TrainingProgress` tells it.
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

    /// nil where there is none that can be read.
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

    /// Replaces the file. A power cut may take it along: it is for watching, and nothing is built on it.
    ///
    /// - Returns: why it could not be written; nil where it was.
    func write(_ run: String) -> String? {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        encoder.nonConformingFloatEncodingStrategy = .convertToString(
            positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
        guard let data = try? encoder.encode(self) else { return "it cannot be encoded" }
        let path = (run as NSString).appendingPathComponent(Self.fileName)
        let temporary = path + ".\(getpid())"
        do {
            try data.write(to: URL(fileURLWithPath: temporary))
        } catch {
            return systemReason(of: error)
        }
        if rename(temporary, path) == 0 { return nil }
        defer { unlink(temporary) }
        return systemReason()
    }
}
