import DistTrain
import Foundation

/// Whether a start of a job shows signs of life, from what is seen of status.json.
public struct StartWatch: Sendable {
    private let startTimeout: Double
    private let silence: Double
    private let began: Double
    private var beat: Int?
    private var beatAt: Double

    /// Seconds beyond the ranks' own patience with each other: they know more, and should be the ones to tell.
    private static let lead = 3.0
    /// Seconds without news from another host: network file systems show a changed file after a minute at times.
    private static let remoteSilence = 90.0
    /// Seconds for ranks and mpirun to leave once the job is over, and once it is lost: mpirun would give ranks that hang
    /// all of the time it has for them.
    private static let farewell = (done: 5.0, lost: 1.0)

    /// - Parameters:
    ///   - startTimeout: seconds for the first status to appear.
    ///   - silence: seconds that the ranks wait for one that is not heard.
    public init(startTimeout: Double, silence: Double, now: Double) {
        self.startTimeout = startTimeout
        self.silence = silence
        (began, beatAt) = (now, now)
    }

    /// Why to end it, in a line; nil while all is well.
    ///
    /// - Parameters:
    ///   - status: the last one seen of this start.
    ///   - isHere: whether rank 0, which writes it every second, is on this host.
    public mutating func fault(_ status: JobStatus?, isHere: Bool, now: Double) -> String? {
        guard let status else {
            return now - began > startTimeout
                ? "no rank has come up within \(duration(startTimeout)) (--start-timeout)" : nil
        }
        if beat != status.beat { (beat, beatAt) = (status.beat, now) }
        let quiet = now - beatAt
        guard status.state == .running else {
            let patience = status.state == .failed ? Self.farewell.lost : Self.farewell.done
            return quiet > patience
                ? status.message ?? "the ranks were done, and mpirun did not end" : nil
        }
        let limit = isHere ? silence + Self.lead : Self.remoteSilence
        guard quiet > limit else { return nil }
        return
            "rank 0 on \(status.ranks.first?.host ?? "its host") has not been heard for \(duration(limit)): the process "
            + "is stopped, its host down or cut off, or the shared folder does not answer"
    }
}
