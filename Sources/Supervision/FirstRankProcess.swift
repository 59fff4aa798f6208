import Foundation
import Records

/// Detects the death of rank 0. Rank 0 watches the other ranks, and no other rank reports its death. mpirun
/// notices immediately, but then gives the remaining ranks their full time to save a checkpoint, although
/// they cannot save without rank 0.
struct FirstRankProcess {
    /// When the process was first found to be gone, in seconds.
    private var goneAt: Double?

    /// Seconds for mpirun to exit and for the last status to be written if the job has ended normally.
    private static let patience = 3.0

    /// The reason to end the job, on one line; nil while the process runs or is not on this host.
    ///
    /// - Parameter status: the latest status of this attempt.
    mutating func fault(_ status: JobStatus?, now: Double) -> String? {
        guard let status, status.state == .running, let first = status.ranks.first, first.rank == 0,
            kill(first.pid, 0) != 0, errno == ESRCH, isThisHost(first.host)
        else {
            goneAt = nil
            return nil
        }
        guard let goneAt else {
            goneAt = now
            return nil
        }
        return now - goneAt > Self.patience ? "rank 0 on \(first.host): died" : nil
    }
}
