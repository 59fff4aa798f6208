import Foundation
import Records
import Synchronization

/// Reads an attempt's `status.json` on a separate thread, so that an unresponsive folder does not block the
/// launcher.
final class StatusReader: Sendable {
    private struct State {
        var latest: JobStatus?
        /// Whether `finish` waits for a last read.
        var isLast = false
    }
    private let state = Mutex(State())
    private let ended = DispatchSemaphore(value: 0)

    private static let interval = 0.25

    /// - Parameter attempt: the attempt whose status is read; the status of any other attempt is ignored.
    init(_ run: String, attempt: String) {
        let thread = Thread { [self] in
            while true {
                let isLast = state.withLock { $0.isLast }
                if let found = JobStatus.read(run), found.attempt == attempt {
                    state.withLock { $0.latest = found }
                }
                if isLast { return _ = ended.signal() }
                usleep(UInt32(Self.interval * 1e6))
            }
        }
        thread.name = "status reader"
        thread.start()
    }

    /// The latest status; nil before the first was read.
    var latest: JobStatus? { state.withLock { $0.latest } }

    /// Reads once more and ends the thread.
    ///
    /// - Returns: the latest status that was read within `seconds`.
    func finish(within seconds: Double) -> JobStatus? {
        state.withLock { $0.isLast = true }
        _ = ended.wait(timeout: .now() + seconds)
        return latest
    }
}

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
