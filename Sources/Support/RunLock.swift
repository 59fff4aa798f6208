import Foundation
import Synchronization

/// Why a run's folder cannot be had, or is no longer this run's, in one line.
package struct RunLockError: ReportableError, Equatable {
    package let path: String
    package let detail: String
    /// `errno` of the failed file operation; 0 for any other reason.
    package var code: Int32 = 0

    package var message: String { "\(path): \(detail)" }
    package var exitStatus: Int32 { ExitStatus.forSystemError(code, otherwise: ExitStatus.usage) }
}

/// The right to write into a run's folder, which one process of all hosts has at a time. For one rank.
///
/// The holder shows that it lives by rewriting its file every few seconds. A lock is free
/// - when its holder has released it;
/// - when the holder's process is seen to be dead, which a process on the same host sees at once;
/// - when whoever waits, on another host, has itself seen no change of the file for a time. Clocks of two hosts are
///   never compared, and clocks that are set are of no matter.
///
/// So a process that was stopped for minutes may wake up and find its lock taken by another host. It sees that at
/// its next heartbeat, and before it writes where `check` is asked. What it may have begun to write by then does no
/// harm: a checkpoint is put together in a folder of its own attempt.
///
/// The lock stays until `release` is called, or the process ends.
package final class RunLock: Sendable {
    package struct Timing: Sendable {
        /// Seconds between two signs of life.
        package var interval = 10.0
        /// Seconds without one after which a holder on another host is taken for dead. Several intervals: the file
        /// server may be busy with a checkpoint, and its clients may remember a file's state for a while.
        package var grace = 90.0
        /// Seconds that a live holder on this host is given to end: when mpirun is killed, its ranks die a few
        /// seconds later, and who starts again at once should not be refused.
        package var patience = 5.0

        package init() {}

        package init(interval: Double, grace: Double, patience: Double) {
            self.interval = interval
            self.grace = grace
            self.patience = patience
        }
    }

    /// This start of the run.
    package var attempt: String { record.owner.attempt }

    private let run: String
    private let folder: RunLockFolder
    private let number: Int
    private let timing: Timing
    private let descriptor: Int32
    private let record: RunLockRecord
    /// What the heartbeats leave for other threads.
    private struct State {
        var loss: RunLockError?
        /// On a clock that also counts while the machine sleeps.
        var confirmedAt: Double
    }
    private let state: Mutex<State>
    private let heartbeats: Mutex<Heartbeats?>

    /// Takes the lock of a run's folder, which must exist, or waits to see whether its holder still lives.
    ///
    /// - Parameters:
    ///   - attempt: names this start of the run; by default as its launcher does, or drawn at random.
    ///   - superseded: a start that is known to be over, whose lock on another host need not be waited for.
    ///   - wayOut: what the user can do where it is held.
    ///   - note: told, in a line, why the start takes long.
    /// - Throws: `RunLockError`, with who holds it, where it is held.
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

    /// Lets others have the folder, where it is still this run's. The second time it does nothing.
    package func release() {
        guard let beating = heartbeats.withLock({ $0.take() }) else { return }
        var last = sign(beating.stop() + 1)
        last.isReleased = true
        // Where it cannot be written, the end of this process releases the lock.
        if confirm() == nil { _ = RunLockFolder.write(last, to: descriptor) }
        close(descriptor)
        state.withLock {
            $0.loss = $0.loss ?? RunLockError(path: run, detail: "this run has let go of its folder")
        }
    }

    /// Whether the folder is still this run's, as of the last heartbeat. Cheap, and for any thread.
    package var isHeld: Bool {
        let (isLost, confirmedAt) = state.withLock { ($0.loss != nil, $0.confirmedAt) }
        if isLost { return false }
        // Heartbeats stand still with the process: after a stop the last one tells nothing.
        return secondsSinceBoot() - confirmedAt < 2 * timing.interval || confirm() == nil
    }

    /// Looks whether the folder is still this run's; to be asked before anything is written. For any thread.
    ///
    /// - Throws: `RunLockError` with who has taken it.
    package func check() throws(RunLockError) {
        if let loss = confirm() { throw loss }
    }

    /// A sign of life, on the thread of the heartbeats.
    private func beat(_ count: Int) {
        guard confirm() == nil else { return }
        // A failure is tried again by the next beat. Others will take the lock after some, and `confirm` finds it.
        _ = RunLockFolder.write(sign(count), to: descriptor)
    }

    private func sign(_ count: Int) -> RunLockRecord {
        var record = record
        record.heartbeat = count
        record.heartbeatAt = timeStamp()
        return record
    }

    /// Looks at the folder, and notes what it finds.
    private func confirm() -> RunLockError? {
        if let loss = state.withLock({ $0.loss }) { return loss }
        let now = secondsSinceBoot()
        let loss: RunLockError?
        do throws(RunLockError) {
            loss = try findLoss()
        } catch {
            // A disk that cannot be asked holds nobody up, until others must take this run for dead.
            let silence = now - state.withLock { $0.confirmedAt }
            guard silence > timing.grace else { return nil }
            loss = RunLockError(
                path: run,
                detail: "cannot be seen for \(duration(silence)), and another run may have taken it: "
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
                detail: "has been removed while this run used it; start it again, to go on from its last "
                    + "checkpoint")
        }
        let taker = try folder.read(last).flatMap { RunLockRecord($0) }
        return RunLockError(
            path: run,
            detail: "was taken over by another run, \(taker?.summary ?? "not known which"), since this one "
                + "stood still; it ends here")
    }
}

/// Seconds on a clock that never goes back and also counts while the machine sleeps.
private func secondsSinceBoot() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_BOOTTIME, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
}

/// The time for people, UTC.
private func timeStamp() -> String { Date().formatted(.iso8601) }
