import Foundation
import Synchronization

/// The thread of rank 0 that hears all ranks, keeps `status.json`, and ends the job when a rank is lost.
final class WatchPost: Sendable {
    private let run: String
    private let listener: Int32?
    private let token: String
    private let activity: RankActivity
    private let ended = DispatchSemaphore(value: 0)

    /// What other threads tell the post.
    private struct Notes {
        var status: JobStatus
        var isChanged = true
        var isLeaving = false
        var forgotten: Set<Int> = []
    }
    private let notes: Mutex<Notes>

    init(
        run: String, name: String, steps: Int, host: String, ranks: Int, listener: Int32?, token: String,
        limits: WatchLimits, activity: RankActivity
    ) {
        (self.run, self.listener, self.token, self.activity) = (run, listener, token, activity)
        let now = Date().timeIntervalSince1970
        notes = Mutex(
            Notes(
                status: JobStatus(
                    state: .running, attempt: LaunchRecord.attempt ?? "",
                    beat: 0, startedAt: now, updatedAt: now, name: name, steps: steps, ranks: [])))
        startThread("watch post") { [self] in
            var watch = JobWatch(ranks: ranks, limits: limits, now: monotonicSeconds())
            watch.joined(0, host: host, pid: getpid(), now: monotonicSeconds())
            stand(&watch)
            ended.signal()
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

    /// Nothing is expected from this rank.
    func forget(_ rank: Int) { notes.withLock { _ = $0.forgotten.insert(rank) } }

    func leave(_ state: JobStatus.State, exitStatus: Int32, message: String?) {
        notes.withLock {
            $0.status.state = state
            $0.status.exitStatus = exitStatus
            $0.status.message = message
            $0.isLeaving = true
        }
        ended.wait()
    }

    // MARK: The thread

    /// A connection, and the rank at its other end once that has named itself.
    private struct Line {
        let connection: LineConnection
        var rank: Int?
    }

    private func stand(_ watch: inout JobWatch) {
        var lines: [Line] = []
        var beatAt = -Double.infinity
        var lookedAt = monotonicSeconds()
        defer { if let listener { close(listener) } }
        while true {
            wait(for: lines)
            let now = monotonicSeconds()
            let dozed = now - lookedAt > WatchPace.doze ? now - lookedAt : nil
            if dozed != nil { watch.forgive(now: now) }
            lookedAt = now
            accept(&lines)
            hear(&lines, &watch, now)
            if let dozed, watch.hasLost {
                end(watch.givenUp(after: dozed), watch, lines, now)
            }
            watch.heard(0, activity.reading, now: now)
            let (isLeaving, isChanged, forgotten) = notes.withLock {
                ($0.isLeaving, $0.isChanged, $0.forgotten)
            }
            for rank in forgotten { watch.left(rank) }
            if isLeaving {
                write(watch, now)
                for line in lines {
                    line.connection.send(WatcherMessage(bye: true))
                }
                return
            }
            if let verdict = watch.verdict(now: now) { end(verdict, watch, lines, now) }
            if isChanged || now - beatAt >= WatchPace.beat {
                let beat = write(watch, now)
                for line in lines { line.connection.send(WatcherMessage(tick: beat)) }
                beatAt = now
            }
        }
    }

    private func wait(for lines: [Line]) {
        var requests = lines.map {
            pollfd(
                fd: $0.connection.descriptor,
                events: Int16(POLLIN) | ($0.connection.wantsToWrite ? Int16(POLLOUT) : 0), revents: 0)
        }
        if let listener { requests.append(pollfd(fd: listener, events: Int16(POLLIN), revents: 0)) }
        poll(&requests, nfds_t(requests.count), Int32(WatchPace.look * 1000))
    }

    private func accept(_ lines: inout [Line]) {
        guard let listener else { return }
        while true {
            let descriptor = Foundation.accept(listener, nil, nil)
            if descriptor < 0 { return }
            lines.append(Line(connection: LineConnection(descriptor)))
        }
    }

    private func hear(_ lines: inout [Line], _ watch: inout JobWatch, _ now: Double) {
        for index in lines.indices {
            let connection = lines[index].connection
            connection.flush()
            for message in connection.receive(RankMessage.self) {
                if let hello = message.hello, hello.token == token, lines[index].rank == nil {
                    lines[index].rank = hello.rank
                    watch.joined(hello.rank, host: hello.host, pid: hello.pid, now: now)
                    connection.send(WatcherMessage(tick: 0))
                }
                guard let rank = lines[index].rank else { continue }
                if let reading = message.reading { watch.heard(rank, reading, now: now) }
                if message.bye == true { watch.left(rank) }
            }
            if connection.isClosed, let rank = lines[index].rank { watch.vanished(rank) }
        }
        lines.removeAll { $0.connection.isClosed }
    }

    @discardableResult
    private func write(_ watch: JobWatch, _ now: Double, _ verdict: JobWatch.Verdict? = nil) -> Int {
        let status = notes.withLock {
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
            return $0.status
        }
        status.write(run)
        return status.beat
    }

    /// Ranks wait in MPI and cannot be told in any gentler way.
    private func end(_ verdict: JobWatch.Verdict, _ watch: JobWatch, _ lines: [Line], _ now: Double) -> Never
    {
        write(watch, now, verdict)
        Console.error.write(
            "Error: \(verdict.message); all ranks end here, to go on from the last checkpoint\n")
        for line in lines { line.connection.send(WatcherMessage(end: verdict.message)) }
        // The ranks' last words are on their way.
        usleep(300_000)
        _exit(ExitStatus.crash)
    }
}
