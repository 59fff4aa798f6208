import Foundation
import Records
import Support

/// Detects whether an attempt is alive, from two sources: rank 0's heartbeats, which arrive through mpirun
/// and involve no disk, and changes of status.json.
package struct StartWatch: Sendable {
    private let startTimeout: Double
    private let silence: Double
    private let storage: Double
    private let began: Double
    private var beat: Int?
    private var heartbeat: LauncherHeartbeat?
    private var beatAt: Double
    private var lookedAt: Double

    /// Seconds in addition to the ranks' own timeouts: the ranks have more information and should report a
    /// failure first.
    private static let lead = 3.0
    /// After a suspension longer than this the heartbeats are stale, and the timeout check is skipped once.
    private static let doze = 5.0
    /// Seconds for ranks and mpirun to exit after the job is done, and after it is lost. mpirun would give
    /// hanging ranks its full grace period.
    private static let farewell = (done: 5.0, lost: 1.0)

    /// - Parameters:
    ///   - startTimeout: seconds until the first status must appear.
    ///   - limits: the timeouts that the ranks use for each other.
    package init(startTimeout: Double, limits: WatchLimits, now: Double) {
        self.startTimeout = startTimeout
        (silence, storage) = (limits.silence, limits.storage)
        (began, beatAt, lookedAt) = (now, now, now)
    }

    /// The reason to end the attempt, on one line; nil while it is healthy.
    ///
    /// - Parameters:
    ///   - status: the latest status of this attempt. It does not change while the disk does not respond.
    ///   - heartbeat: the latest heartbeat of rank 0.
    package mutating func fault(_ status: JobStatus?, heartbeat: LauncherHeartbeat?, now: Double) -> String? {
        if now - lookedAt > Self.doze { beatAt = now }
        lookedAt = now
        if heartbeat != self.heartbeat { (self.heartbeat, beatAt) = (heartbeat, now) }
        if status?.beat != beat { (beat, beatAt) = (status?.beat, now) }
        let quiet = now - beatAt
        if let status, status.state != .running {
            let patience = status.state == .failed ? Self.farewell.lost : Self.farewell.done
            return quiet > patience
                ? status.message ?? "the ranks have finished, but mpirun did not exit" : nil
        }
        guard let heartbeat else {
            return now - began > startTimeout
                ? "no rank has started within \(duration(startTimeout)) (--start-timeout)" : nil
        }
        switch heartbeat.state {
        case .watching: break
        case .done:
            // The last status waits for the disk, and so may the release of the run's lock.
            return quiet > storage
                ? "the ranks have finished, but did not exit within \(duration(storage))" : nil
        case .lost(let reason): return quiet > Self.farewell.lost ? reason : nil
        }
        let limit = silence + Self.lead
        guard quiet > limit else { return nil }
        return
            "rank 0 on \(status?.ranks.first?.host ?? "its host") has sent no heartbeat for \(duration(limit)): the process "
            + "is suspended, or its host is down or unreachable"
    }
}
