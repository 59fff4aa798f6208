import Foundation
import Support
import Synchronization

/// Writes `status.json` on a separate thread, so that an unresponsive disk delays only the file.
///
/// If several values are submitted while one is being written, only the last of them is written.
package final class StatusWriter: Sendable {
    private struct State {
        var newest: JobStatus?
        var isLast = false
    }
    private let state = Mutex(State())
    private let wake = DispatchSemaphore(value: 0)
    private let ended = DispatchSemaphore(value: 0)

    /// - Parameter write: writes one value; may block for any time.
    package init(_ write: @escaping @Sendable (JobStatus) -> Void) {
        startThread("status writer") { [self] in
            while true {
                wake.wait()
                let (status, isLast) = state.withLock { state in
                    defer { state.newest = nil }
                    return (state.newest, state.isLast)
                }
                if let status { write(status) }
                if isLast { return _ = ended.signal() }
            }
        }
    }

    /// Schedules a value to be written.
    package func submit(_ status: JobStatus) {
        state.withLock { $0.newest = status }
        wake.signal()
    }

    /// Schedules the last value and waits until it is written.
    ///
    /// - Returns: whether the value was written; false if the disk did not respond within `seconds`.
    @discardableResult
    package func finish(_ status: JobStatus, within seconds: Double) -> Bool {
        state.withLock { ($0.newest, $0.isLast) = (status, true) }
        wake.signal()
        return ended.wait(timeout: .now() + seconds) == .success
    }
}

/// Prints a warning when `status.json` cannot be written, once per series of failures. Training does not
/// depend on the file. For one thread at a time.
final class StatusFileReport: @unchecked Sendable {
    // Invariant for `@unchecked Sendable`: only the status writer's thread uses it.
    private let path: String
    private var isFailing = false

    init(_ run: String) { path = (run as NSString).appendingPathComponent(JobStatus.fileName) }

    func note(_ problem: String?) {
        defer { isFailing = problem != nil }
        guard isFailing != (problem != nil) else { return }
        Console.error.write(
            problem.map { "Warning: \(path): cannot be written, training continues: \($0)\n" }
                ?? "\(path): can be written again\n")
    }
}
