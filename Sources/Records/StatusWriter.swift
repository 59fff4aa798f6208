import Foundation
import Support
import Synchronization

/// Writes `status.json` on a thread of its own: a disk that does not answer delays the file, and nothing else.
///
/// Of values that come while one is being written the last is written.
package final class StatusWriter: Sendable {
    private struct State {
        package var newest: JobStatus?
        var isLast = false
    }
    private let state = Mutex(State())
    private let wake = DispatchSemaphore(value: 0)
    private let ended = DispatchSemaphore(value: 0)

    /// - Parameter write: writes one value; may take any time.
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

    /// Has a value written, soon.
    package func submit(_ status: JobStatus) {
        state.withLock { $0.newest = status }
        wake.signal()
    }

    /// Has a last value written and waits for it.
    ///
    /// - Returns: whether it is in the file; false where the disk has not answered within `seconds`.
    @discardableResult
    package func finish(_ status: JobStatus, within seconds: Double) -> Bool {
        state.withLock { ($0.newest, $0.isLast) = (status, true) }
        wake.signal()
        return ended.wait(timeout: .now() + seconds) == .success
    }
}

/// Reports once a series that `status.json` cannot be written; nothing depends on it. For one thread at a time.
final class StatusFileReport: @unchecked Sendable {
    // Unchecked: used on the status writer's thread alone.
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
