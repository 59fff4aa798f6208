import Foundation
import Records
import Synchronization

/// Reads a start's `status.json` on a thread of its own: a folder that does not answer must not keep the launcher from
/// anything else.
final class StatusReader: Sendable {
    private struct State {
        var latest: JobStatus?
        /// Somebody waits for a last look.
        var isLast = false
    }
    private let state = Mutex(State())
    private let ended = DispatchSemaphore(value: 0)

    private static let interval = 0.25

    /// - Parameter attempt: the start whose status is wanted; one that another start has left is not taken.
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

    /// The newest that was read; nil before the first.
    var latest: JobStatus? { state.withLock { $0.latest } }

    /// Looks once more, and ends the thread.
    ///
    /// - Returns: the newest that was read within `seconds`.
    func finish(within seconds: Double) -> JobStatus? {
        state.withLock { $0.isLast = true }
        _ = ended.wait(timeout: .now() + seconds)
        return latest
    }
}
