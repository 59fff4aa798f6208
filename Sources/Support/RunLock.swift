import Foundation
import Synchronization

/// Why a run folder's lock cannot be taken or has been lost; the message is one line.
package struct RunLockError: ReportableError, Equatable {
    package let path: String
    package let detail: String
    /// `errno` of the failed file operation; 0 for any other reason.
    package var code: Int32 = 0

    package var message: String { "\(path): \(detail)" }
    package var exitStatus: Int32 { ExitStatus.forSystemError(code, otherwise: ExitStatus.usage) }
}

/// An exclusive lock on a run's folder, across all hosts. Held by one rank.
///
/// The holder rewrites its lock file every few seconds as a heartbeat. The lock is free
/// - when its holder has released it;
/// - when the holder's process is dead, which a process on the same host detects at once;
/// - when a waiting process on another host has itself observed no heartbeat for the heartbeat timeout.
///   Clocks of two hosts are never compared, and changes of the wall clock have no effect.
///
/// A process that was suspended for minutes may therefore resume after another host has taken its lock. It
/// detects this at its next heartbeat, and in `check` before it writes. A write that was already in progress
/// is harmless: each attempt assembles its checkpoint in a separate folder.
///
/// The lock is held until `release` is called or the process ends.
package final class RunLock: Sendable {
    package struct Timing: Sendable {
        /// Seconds between two heartbeats.
        package var interval = 10.0
        /// Heartbeat timeout in seconds for a holder on another host. It spans several intervals, because a
        /// file server may be busy with a checkpoint and its clients may cache a file's attributes.
        package var grace = 90.0
        /// Seconds to wait for a live holder on this host to end: after mpirun is killed, its ranks exit a
        /// few seconds later, and an immediate restart should succeed.
        package var patience = 5.0

        package init() {}

        package init(interval: Double, grace: Double, patience: Double) {
            (self.interval, self.grace, self.patience) = (interval, grace, patience)
        }
    }

    /// The ID of this launch.
    package var attempt: String { record.owner.attempt }

    private let run: String
    private let folder: RunLockFolder
    private let number: Int
    private let timing: Timing
    private let descriptor: Int32
    private let record: RunLockRecord
    /// State that the heartbeat thread shares with other threads.
    private struct State {
        var loss: RunLockError?
        /// Time of the last successful check, in seconds on CLOCK_BOOTTIME, which includes system suspend.
        var confirmedAt: Double
    }
    private let state: Mutex<State>
    private let heartbeats: Mutex<Heartbeats?>

    /// Takes the lock of a run's folder, which must exist; first waits to observe whether a current holder is
    /// alive.
    ///
    /// - Parameters:
    ///   - attempt: the ID of this launch; by default from the launcher, or random.
    ///   - superseded: the ID of a launch that has ended; its lock is taken without waiting, even from
    ///     another host.
    ///   - wayOut: what the user can do if the lock is held.
    ///   - note: called with a line that explains a long wait.
    /// - Throws: `RunLockError` that names the holder, if the lock is held.
    package static func take(
        _ run: String, attempt: String? = LaunchAttempt.current,
        superseded: String? = LaunchAttempt.superseded,
        timing: Timing = Timing(), wayOut: String = "wait for its end or stop it, or choose another --output",
        note: (String) -> Void = { _ in }
    ) throws(RunLockError) -> RunLock {
        let attempt = attempt ?? String(UInt64.random(in: 1 << 60...UInt64.max), radix: 16)
        let folder = RunLockFolder(run: run)
        let owner = RunLockOwner.current(attempt: attempt)
        while true {
            let last = try folder.numbers().last ?? 0
            if last > 0 {
                let observer = RunLockObserver(
                    run: run, folder: folder, number: last, timing: timing, wayOut: wayOut,
                    superseded: superseded)
                guard try observer.waitUntilFree(note: note) else { continue }
            }
            let record = RunLockRecord(owner: owner, at: timeStamp())
            guard let descriptor = try folder.create(last + 1, record) else { continue }
            return RunLock(run, folder, last + 1, timing, descriptor, record)
        }
    }

    private init(
        _ run: String, _ folder: RunLockFolder, _ number: Int, _ timing: Timing, _ descriptor: Int32,
        _ record: RunLockRecord
    ) {
        (self.run, self.folder, self.number, self.timing) = (run, folder, number, timing)
        self.descriptor = descriptor
        self.record = record
        state = Mutex(State(loss: nil, confirmedAt: secondsSinceBoot()))
        heartbeats = Mutex(nil)
        let started = Heartbeats(every: timing.interval) { [self] in beat($0) }
        heartbeats.withLock { $0 = started }
    }

    /// Releases the lock if this run still holds it. Idempotent.
    package func release() {
        guard let beating = heartbeats.withLock({ $0.take() }) else { return }
        var last = sign(beating.stop() + 1)
        last.isReleased = true
        // If this write fails, the end of the process releases the lock.
        if confirm() == nil { _ = RunLockFolder.write(last, to: descriptor) }
        close(descriptor)
        state.withLock {
            $0.loss = $0.loss ?? RunLockError(path: run, detail: "this run has released its lock")
        }
    }

    /// Whether this run still holds the lock, as of the last heartbeat. Cheap, and safe to call from any
    /// thread.
    package var isHeld: Bool {
        let (isLost, confirmedAt) = state.withLock { ($0.loss != nil, $0.confirmedAt) }
        if isLost { return false }
        // Heartbeats stop while the process is suspended, so the last result may be stale; check again.
        return secondsSinceBoot() - confirmedAt < 2 * timing.interval || confirm() == nil
    }

    /// Checks that this run still holds the lock; call it before each write. Safe to call from any thread.
    ///
    /// - Throws: `RunLockError` that names the new holder.
    package func check() throws(RunLockError) {
        if let loss = confirm() { throw loss }
    }

    /// One heartbeat; runs on the heartbeat thread.
    private func beat(_ count: Int) {
        guard confirm() == nil else { return }
        // The next beat retries a failed write. After a series of failures another process takes the lock,
        // and `confirm` detects it.
        _ = RunLockFolder.write(sign(count), to: descriptor)
    }

    private func sign(_ count: Int) -> RunLockRecord {
        var record = record
        record.heartbeat = count
        record.heartbeatAt = timeStamp()
        return record
    }

    /// Checks the lock folder and records the result.
    private func confirm() -> RunLockError? {
        if let loss = state.withLock({ $0.loss }) { return loss }
        let now = secondsSinceBoot()
        let loss: RunLockError?
        do throws(RunLockError) {
            loss = try findLoss()
        } catch {
            // A failing file system does not block this run until the heartbeat timeout: from then on, others
            // may consider this run dead and take its lock.
            let silence = now - state.withLock { $0.confirmedAt }
            guard silence > timing.grace else { return nil }
            loss = RunLockError(
                path: run,
                detail: "has been inaccessible for \(duration(silence)), and another run may have locked it: "
                    + error.message, code: error.code)
        }
        return state.withLock {
            if let loss {
                $0.loss = $0.loss ?? loss
            } else {
                $0.confirmedAt = max($0.confirmedAt, now)
            }
            return $0.loss
        }
    }

    private func findLoss() throws(RunLockError) -> RunLockError? {
        let last = try folder.numbers().last
        var status = stat()
        let isThere = fstat(descriptor, &status) == 0 ? status.st_nlink > 0 : errno != ESTALE
        if last == number, isThere { return nil }
        guard let last, last > number else {
            return RunLockError(
                path: folder.path,
                detail: "has been removed while this run used it; start it again, to resume from its last "
                    + "checkpoint")
        }
        let taker = try folder.read(last).flatMap { RunLockRecord($0) }
        return RunLockError(
            path: run,
            detail: "was taken over by another run, \(taker?.summary ?? "unknown"), while this one "
                + "was suspended; this one ends")
    }
}

/// Seconds on CLOCK_BOOTTIME: monotonic, and includes system suspend.
private func secondsSinceBoot() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_BOOTTIME, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
}

/// The current UTC time in ISO 8601, for display.
private func timeStamp() -> String { Date().formatted(.iso8601) }
