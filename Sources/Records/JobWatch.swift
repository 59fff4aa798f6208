import Support

/// The last known state of all ranks, and the decision whether one of them is dead or hung. The type uses
/// neither a clock nor the network: callers pass in the events and their times.
package struct JobWatch: Sendable {
    /// The last known state of one rank.
    package struct Member: Codable, Sendable, Equatable {
        package var rank: Int
        package var host: String
        package var pid: Int32
        package var reading: RankActivity.Reading
        /// Seconds since the last message from the rank.
        package var silentSeconds: Double
        /// The connection was closed without a goodbye message, so the process has died.
        package var isGone: Bool

        /// For example "rank 3 (node1, process 4711): computing, step 120, for 17 s".
        package var line: String {
            let place = "rank \(rank) (\(host), process \(pid))"
            let doing = "\(reading.phase.words), step \(reading.step)"
            if isGone { return "\(place): died; last seen \(doing)" }
            let quiet = silentSeconds >= 3 ? "; no heartbeat for \(duration(silentSeconds))" : ""
            return "\(place): \(doing), for \(duration(reading.seconds + silentSeconds))\(quiet)"
        }
    }

    /// Why the job cannot continue.
    package struct Verdict: Codable, Sendable, Equatable {
        /// One line of text.
        package var message: String
        /// The ranks that caused the failure; empty if all ranks wait for each other.
        package var missing: [Int]
    }

    private struct Heard {
        var host = "unknown host"
        var pid: Int32 = 0
        var reading: RankActivity.Reading?
        var heardAt: Double
        var isGone = false
        var hasLeft = false
        var hasJoined = false
    }

    package let limits: WatchLimits
    private var ranks: [Heard]
    /// When any rank last made progress.
    private var movedAt: Double
    /// Recent maximum of the step time, in seconds.
    private var stepSeconds = 0.0
    /// The highest step that a rank has reported.
    private var newestStep = 0

    package init(ranks: Int, limits: WatchLimits, now: Double) {
        self.limits = limits
        self.ranks = Array(repeating: Heard(heardAt: now), count: ranks)
        movedAt = now
    }

    // MARK: Events

    package mutating func joined(_ rank: Int, host: String, pid: Int32, now: Double) {
        guard ranks.indices.contains(rank) else { return }
        ranks[rank] = Heard(
            host: host, pid: pid, reading: ranks[rank].reading, heardAt: now, hasJoined: true)
    }

    package mutating func heard(_ rank: Int, _ reading: RankActivity.Reading, now: Double) {
        guard ranks.indices.contains(rank) else { return }
        if ranks[rank].reading?.ticks != reading.ticks { movedAt = now }
        if reading.stepSeconds > 0 {
            // The maximum decays by 2 % with each new step of the job, whatever the number of ranks, so that one
            // long step does not raise the timeout for good.
            let isNew = reading.step > newestStep
            newestStep = max(newestStep, reading.step)
            stepSeconds = max(reading.stepSeconds, isNew ? stepSeconds * 0.98 : stepSeconds)
        }
        ranks[rank].reading = reading
        ranks[rank].heardAt = now
    }

    /// The rank has sent its goodbye message: ignore its state from now on.
    package mutating func left(_ rank: Int) {
        if ranks.indices.contains(rank) { ranks[rank].hasLeft = true }
    }

    /// The rank's connection ended without a goodbye message.
    package mutating func vanished(_ rank: Int) {
        if ranks.indices.contains(rank), !ranks[rank].hasLeft { ranks[rank].isGone = true }
    }

    /// This process was suspended, so it may have missed heartbeats: restart all timeouts.
    package mutating func forgive(now: Double) {
        movedAt = now
        for rank in ranks.indices { ranks[rank].heardAt = now }
    }

    // MARK: Verdict

    /// Whether a rank's connection has ended without a goodbye message.
    var hasLost: Bool { ranks.contains { $0.isGone && !$0.hasLeft } }

    /// The verdict if rank 0 itself was suspended and other ranks have ended meanwhile.
    func givenUp(after seconds: Double) -> Verdict {
        Verdict(
            message:
                "rank 0 on \(ranks[0].host): was suspended for \(duration(seconds)), and other ranks have exited "
                + "meanwhile",
            missing: [0])
    }

    package func members(now: Double) -> [Member] {
        ranks.enumerated().map { rank, heard in
            Member(
                rank: rank, host: heard.host, pid: heard.pid,
                reading: heard.reading
                    ?? RankActivity.Reading(
                        phase: .start, step: 0, ticks: 0, seconds: 0, stepSeconds: 0, ownSeconds: 0),
                silentSeconds: now - heard.heardAt, isGone: heard.isGone)
        }
    }

    /// Applies, in this order, the checks for dead ranks, for the heartbeat timeout and for the progress
    /// timeout. Returns nil if all ranks are healthy.
    package func verdict(now: Double) -> Verdict? {
        let present = members(now: now).filter { !ranks[$0.rank].hasLeft }
        guard let first = present.first else { return nil }
        let gone = present.filter(\.isGone)
        if !gone.isEmpty { return blame(gone, "died", among: present) }
        let silent = present.filter {
            $0.silentSeconds > (ranks[$0.rank].hasJoined ? limits.silence : limits.joining)
        }
        if let longest = silent.map(\.silentSeconds).max() {
            return blame(silent, "no heartbeat for \(duration(longest.rounded(.down)))", among: present)
        }
        let slowest = present.min { Self.isBehind($0, $1) } ?? first
        let limit = limits.standstill(in: slowest.reading.phase, stepSeconds: stepSeconds)
        guard now - movedAt > limit else { return nil }
        let late = present.filter { !Self.isBehind(slowest, $0) }
        guard late.count < present.count else {
            return Verdict(
                message:
                    "step \(slowest.reading.step): all \(present.count) ranks have been \(slowest.reading.phase.words) "
                    + "for more than \(duration(limit)): messages between them are lost, or a disk does not respond",
                missing: [])
        }
        return blame(late, "no progress for \(duration(limit))", among: present)
    }

    private func blame(_ culprits: [Member], _ what: String, among present: [Member]) -> Verdict {
        let missing = Set(culprits.map(\.rank))
        let named = culprits.prefix(8).map { "rank \($0.rank) on \($0.host)" }.joined(separator: ", ")
        let more = culprits.count > 8 ? " and \(culprits.count - 8) more" : ""
        let last = culprits[0].reading
        var message = "\(named)\(more): \(what), last seen \(last.phase.words) in step \(last.step)"
        let waiting = present.filter { !missing.contains($0.rank) }
        if let other = waiting.max(by: { Self.isBehind($0, $1) }) {
            message +=
                "; the other \(waiting.count == 1 ? "rank" : "\(waiting.count) ranks"): \(other.reading.phase.words), step \(other.reading.step)"
        }
        return Verdict(message: message, missing: missing.sorted())
    }

    /// Whether `a` has made less progress than `b`. Work between two steps carries the number of the
    /// following step.
    private static func isBehind(_ a: Member, _ b: Member) -> Bool {
        func place(_ reading: RankActivity.Reading) -> (Int, Int, Int) {
            (reading.step, reading.phase.isInStep ? 1 : 0, reading.phase.order)
        }
        return place(a.reading) < place(b.reading)
    }

    /// The host with the longest working time per step (waiting excluded), and the ratio of that time to the
    /// median rank's; nil if the job runs on one host.
    package func slowestHost(now: Double) -> (host: String, ratio: Double)? {
        let own = members(now: now).filter { $0.reading.ownSeconds > 0 }
        guard Set(own.map(\.host)).count > 1 else { return nil }
        let sorted = own.map(\.reading.ownSeconds).sorted()
        let slowest = own.max { $0.reading.ownSeconds < $1.reading.ownSeconds }!
        return (slowest.host, slowest.reading.ownSeconds / sorted[(sorted.count - 1) / 2])
    }
}
