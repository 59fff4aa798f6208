import Foundation
import Support
import Synchronization

/// The thread of rank 0 that receives the reports of all ranks and aborts the job when a rank is lost. It
/// touches no disk: another thread writes `status.json`.
final class WatchPost: Sendable {
    private let activity: RankActivity
    private let ended = DispatchSemaphore(value: 0)
    /// Interrupts the wait of a job without a server.
    private let wake = DispatchSemaphore(value: 0)

    /// State that other threads set for this thread.
    private struct Notes {
        var status: JobStatus
        var writer: StatusWriter?
        var isChanged = true
        var isLeaving = false
        var forgotten: Set<Int> = []
    }
    private let notes: Mutex<Notes>

    /// Seconds to wait for the last status to reach the disk, if the job ends normally and if it is aborted.
    /// The limit keeps an unresponsive disk from blocking the exit.
    private static let lastWrite = (inOrder: 10.0, lost: 2.0)

    /// - Parameter server: nil if there are no other ranks, or if no address can be listened on.
    init(
        host: String, ranks: Int, server: WatchServer?, limits: WatchLimits,
        activity: RankActivity
    ) {
        self.activity = activity
        let now = Date().timeIntervalSince1970
        notes = Mutex(
            Notes(
                status: JobStatus(
                    state: .running, attempt: LaunchAttempt.current ?? "",
                    beat: 0, startedAt: now, updatedAt: now, name: "", steps: 0, ranks: [])))
        // From here on, only the thread uses the server.
        nonisolated(unsafe) let own = server
        startThread("watch post") { [self] in
            var watch = JobWatch(ranks: ranks, limits: limits, now: monotonicSeconds())
            watch.joined(0, host: host, pid: getpid(), now: monotonicSeconds())
            stand(&watch, own)
            ended.signal()
        }
    }

    /// Writes `status.json` to the run folder from now on.
    func keepStatus(in run: String, name: String, steps: Int) {
        let writer = StatusWriter { [report = StatusFileReport(run)] in report.note($0.write(run)) }
        notes.withLock {
            ($0.status.name, $0.status.steps, $0.writer, $0.isChanged) = (name, steps, writer, true)
        }
    }

    func note(_ progress: JobStatus.Progress) {
        notes.withLock { ($0.status.progress, $0.isChanged) = (progress, true) }
    }

    func note(checkpoint step: Int) {
        notes.withLock { ($0.status.checkpointStep, $0.isChanged) = (step, true) }
    }

    func note(alarm: String?) {
        notes.withLock {
            if $0.status.alarm != alarm { ($0.status.alarm, $0.isChanged) = (alarm, true) }
        }
    }

    /// Excludes a rank from monitoring.
    func forget(_ rank: Int) { notes.withLock { _ = $0.forgotten.insert(rank) } }

    func leave(_ state: JobStatus.State, exitStatus: Int32, message: String?) {
        notes.withLock {
            $0.status.state = state
            $0.status.exitStatus = exitStatus
            $0.status.message = message
            $0.isLeaving = true
        }
        wake.signal()
        ended.wait()
    }

    // MARK: The thread

    private func stand(_ watch: inout JobWatch, _ server: WatchServer?) {
        var beatAt = -Double.infinity
        var lookedAt = monotonicSeconds()
        while true {
            if let server {
                server.wait(seconds: WatchPace.look)
            } else {
                _ = wake.wait(timeout: .now() + WatchPace.look)
            }
            let now = monotonicSeconds()
            let dozed = now - lookedAt > WatchPace.doze ? now - lookedAt : nil
            if dozed != nil { watch.forgive(now: now) }
            lookedAt = now
            for event in server?.receive(now: now) ?? [] { watch.take(event, now: now) }
            if let dozed, watch.hasLost { end(watch.givenUp(after: dozed), watch, server, now) }
            watch.heard(0, activity.reading, now: now)
            let (isLeaving, isChanged, forgotten) = notes.withLock {
                ($0.isLeaving, $0.isChanged, $0.forgotten)
            }
            for rank in forgotten { watch.left(rank) }
            if isLeaving {
                server?.broadcast(WatcherMessage(bye: true))
                let (status, writer) = status(watch, now)
                signalLauncher(LauncherHeartbeat(status.beat, .done))
                writer?.finish(status, within: Self.lastWrite.inOrder)
                return
            }
            if let verdict = watch.verdict(now: now) { end(verdict, watch, server, now) }
            if isChanged || now - beatAt >= WatchPace.beat {
                let (status, writer) = status(watch, now)
                server?.broadcast(WatcherMessage(tick: status.beat))
                signalLauncher(LauncherHeartbeat(status.beat))
                writer?.submit(status)
                beatAt = now
            }
        }
    }

    private func signalLauncher(_ heartbeat: LauncherHeartbeat) {
        if LaunchAttempt.isSupervised { Console.output.write(heartbeat.line + "\n") }
    }

    /// The current status and its writer; nil if the status is not written.
    private func status(
        _ watch: JobWatch, _ now: Double, _ verdict: JobWatch.Verdict? = nil
    ) -> (JobStatus, StatusWriter?) {
        notes.withLock {
            $0.isChanged = false
            $0.status.beat += 1
            $0.status.updatedAt = Date().timeIntervalSince1970
            $0.status.ranks = watch.members(now: now)
            if let slowest = watch.slowestHost(now: now) {
                ($0.status.slowestHost, $0.status.slowestRatio) = (slowest.host, slowest.ratio)
            }
            if let verdict {
                $0.status.state = .failed
                ($0.status.message, $0.status.missing) = (verdict.message, verdict.missing)
                $0.status.exitStatus = ExitStatus.crash
            }
            return ($0.status, $0.writer)
        }
    }

    /// Aborts all ranks. They are blocked in MPI calls and cannot be stopped cleanly.
    private func end(
        _ verdict: JobWatch.Verdict, _ watch: JobWatch, _ server: WatchServer?, _ now: Double
    ) -> Never {
        let (status, writer) = status(watch, now, verdict)
        server?.broadcast(WatcherMessage(end: true))
        signalLauncher(LauncherHeartbeat(status.beat, .lost(verdict.message)))
        let resumes = writer == nil ? "" : "; the run can resume from its last checkpoint"
        Console.error.write("Error: \(verdict.message); all ranks exit\(resumes)\n")
        let began = monotonicSeconds()
        writer?.finish(status, within: Self.lastWrite.lost)
        // Give the ranks' last output, which is still in flight, time to arrive.
        let rest = 0.3 - (monotonicSeconds() - began)
        if rest > 0 { usleep(UInt32(rest * 1e6)) }
        _exit(ExitStatus.crash)
    }
}

extension JobWatch {
    mutating func take(_ event: WatchServer.Event, now: Double) {
        switch event {
        case .message(let rank, let message):
            if let hello = message.hello { joined(rank, host: hello.host, pid: hello.pid, now: now) }
            if let reading = message.reading { heard(rank, reading, now: now) }
            if message.bye == true { left(rank) }
        case .closed(let rank): vanished(rank)
        }
    }
}
