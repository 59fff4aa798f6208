import Foundation
import LDMModel

/// How a job stands, in `status.json` of the run's folder: for the launcher, for `disttrain status` on any machine, and
/// for who looks after a failure. Rank 0's watching thread replaces it about once a second.
public struct JobStatus: Codable, Sendable, Equatable {
    public enum State: String, Codable, Sendable {
        case running, finished
        /// Ended early with a checkpoint: run it again.
        case stopped
        case failed
    }

    public var state: State
    /// Which start of the run, as the launcher named it.
    public var attempt: String
    /// Grows with every writing, for who has another clock.
    public var beat: Int
    /// Seconds since 1970, by rank 0's clock.
    public var startedAt: Double
    public var updatedAt: Double
    public var name: String
    public var steps: Int
    public var progress: Progress?
    /// The newest checkpoint's step.
    public var checkpointStep: Int?
    /// Why checkpoints cannot be saved at the moment; training continues meanwhile.
    public var alarm: String?
    public var ranks: [JobWatch.Member]
    public var slowestHost: String?
    /// How much longer than the median rank it works for a step.
    public var slowestRatio: Double?
    /// Where the job has ended: the exit code, and why.
    public var exitStatus: Int32?
    public var message: String?
    public var missing: [Int]?

    /// Of the last logged step.
    public struct Progress: Codable, Sendable, Equatable {
        public var step: Int
        public var loss: Double
        public var learningRate: Double
        public var imagesPerSecond: Double
        public var stepSeconds: Double
        /// Seconds to the last step, samples and checkpoints included.
        public var remainingSeconds: Double?

        /// As `TrainingProgress` tells it.
        public func fields(of steps: Int) -> [String] {
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

    public static let fileName = "status.json"

    /// nil where there is none that can be read.
    public static func read(_ run: String) -> JobStatus? {
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
