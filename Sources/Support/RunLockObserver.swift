import Foundation

/// Watches a lock that somebody holds, to learn whether that somebody still lives.
struct RunLockObserver {
    let run: String
    let folder: RunLockFolder
    let number: Int
    let timing: RunLock.Timing
    let wayOut: String
    /// See `RunLock.take`.
    var superseded: String?

    /// Changes of the file after which a holder on another host is believed to live. One may have been its last.
    private static let convincing = 2

    /// - Returns: true when the lock is free; false when it is no longer the newest.
    /// - Throws: who holds it, when that is sure.
    func waitUntilFree(note: (String) -> Void) throws(RunLockError) -> Bool {
        let began = monotonicSeconds()
        var seen: [UInt8]?
        var seenAt = began
        var changes = 0
        while true {
            // In this order: what is read below is no older than `now`, however long this process was stopped.
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
                // A launcher has seen it end, or has given it up with its host: should it wake up, it finds its lock
                // taken.
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
            detail: "is in use by another run, \(record?.summary ?? "not known which"); \(wayOut)")
    }

    private func sleep(_ seconds: Double) { usleep(UInt32(seconds * 1e6)) }
}
