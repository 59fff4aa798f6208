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
