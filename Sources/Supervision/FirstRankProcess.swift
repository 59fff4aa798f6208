import Foundation
import Records

/// Whether rank 0, which watches the other ranks and whom no other reports, has died. mpirun notices at once and then lets
/// the other ranks have all of their time to save, although they cannot.
struct FirstRankProcess {
    /// When it was first seen to be gone.
    private var goneAt: Double?

    /// Seconds for mpirun and for the last status, where the job has ended in order.
    private static let patience = 3.0

    /// Why to end the job, in a line; nil while the process runs or cannot be seen from here.
    ///
    /// - Parameter status: the last one seen of this start.
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
