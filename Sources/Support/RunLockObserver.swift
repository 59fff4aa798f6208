import Foundation

/// Observes a lock held by another process, to determine whether the holder is alive.
struct RunLockObserver {
    let run: String
    let folder: RunLockFolder
    let number: Int
    let timing: RunLock.Timing
    let wayOut: String
    /// See `RunLock.take`.
    var superseded: String?

    /// Number of observed heartbeats after which a holder on another host is considered alive. A single one
    /// may have been its last.
    private static let convincing = 2

    /// Waits until the lock is free.
    ///
    /// - Returns: true if the lock is free; false if it is no longer the newest.
    /// - Throws: `RunLockError` that names the holder, once it is known to be alive.
    func waitUntilFree(note: (String) -> Void) throws(RunLockError) -> Bool {
        let began = monotonicSeconds()
        var seen: [UInt8]?
        var seenAt = began
        var changes = 0
        while true {
            // Read the clock first: the data read below is then no older than `now`, even if this process is
            // suspended in between.
            let now = monotonicSeconds()
            guard let bytes = try folder.read(number), try folder.numbers().last == number else {
                return false
            }
            let record = RunLockRecord(bytes)
            if record?.isReleased == true { return true }
            switch record?.owner.state ?? .unknown {
            case .dead: return true
            case .alive:
                if now - began >= timing.patience || record?.owner.pid == getpid() { throw held(by: record) }
                sleep(min(0.1, timing.patience / 10))
            case .unknown:
                // The launcher has seen this launch end, or has abandoned it with its host. If its process
                // resumes, it detects that its lock has been taken.
                if let superseded, record?.owner.attempt == superseded { return true }
                if let seen {
                    if seen != bytes {
                        changes += 1
                        seenAt = monotonicSeconds()
                    } else if now - seenAt >= timing.grace {
                        return true
                    }
                    if changes >= Self.convincing { throw held(by: record) }
                } else {
                    seenAt = monotonicSeconds()
                    note(
                        "\(run) is locked by \(record?.summary ?? "an unfinished lock"); waiting up to "
                            + "\(duration(timing.grace)) to see whether it still runs")
                }
                seen = bytes
                sleep(min(1, timing.interval / 10))
            }
        }
    }

    private func held(by record: RunLockRecord?) -> RunLockError {
        RunLockError(
            path: run,
            detail: "is in use by another run, \(record?.summary ?? "unknown"); \(wayOut)")
    }

    private func sleep(_ seconds: Double) { usleep(UInt32(seconds * 1e6)) }
}
