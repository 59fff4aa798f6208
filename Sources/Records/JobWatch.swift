import Support

/// What is known of all ranks, and whether one of them is dead or hung. No clock and no network: those who have them
/// tell it what they hear, and when.
package struct JobWatch: Sendable {
    /// What is known of one rank.
    package struct Member: Codable, Sendable, Equatable {
        package var rank: Int
        package var host: String
        package var pid: Int32
        package var reading: RankActivity.Reading
        /// Seconds since the rank was heard.
        package var silentSeconds: Double
        /// Its connection was closed: the process has died.
        package var isGone: Bool

        /// "rank 3 (node1): computing step 120 for 17 s"
        package var line: String {
            let place = "rank \(rank) (\(host), process \(pid))"
            let doing = "\(reading.phase.words), step \(reading.step)"
            if isGone { return "\(place): gone; last heard \(doing)" }
            let quiet = silentSeconds >= 3 ? "; not heard for \(duration(silentSeconds))" : ""
            return "\(place): \(doing), for \(duration(reading.seconds + silentSeconds))\(quiet)"
        }
    }

    /// Why the job cannot go on.
    package struct Verdict: Codable, Sendable, Equatable {
        /// One line.
        package var message: String
        /// The ranks that are to blame; empty where all wait for each other.
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
    /// When any rank was last seen to get on.
    private var movedAt: Double
    /// Of the longest of the last steps.
    private var stepSeconds = 0.0

    package init(ranks: Int, limits: WatchLimits, now: Double) {
        self.limits = limits
        self.ranks = Array(repeating: Heard(heardAt: now), count: ranks)
        movedAt = now
    }

    // MARK: What is heard

    package mutating func joined(_ rank: Int, host: String, pid: Int32, now: Double) {
        guard ranks.indices.contains(rank) else { return }
        ranks[rank] = Heard(
            host: host, pid: pid, reading: ranks[rank].reading, heardAt: now, hasJoined: true)
    }

    package mutating func heard(_ rank: Int, _ reading: RankActivity.Reading, now: Double) {
        guard ranks.indices.contains(rank) else { return }
        if ranks[rank].reading?.ticks != reading.ticks { movedAt = now }
        if reading.stepSeconds > 0 {
            // It forgets a long step within some dozens.
            let isNew = ranks[rank].reading?.step != reading.step
            stepSeconds = max(reading.stepSeconds, isNew ? stepSeconds * 0.98 : stepSeconds)
        }
        ranks[rank].reading = reading
        ranks[rank].heardAt = now
    }

    /// The rank said farewell: what becomes of it is no matter any more.
    package mutating func left(_ rank: Int) {
        if ranks.indices.contains(rank) { ranks[rank].hasLeft = true }
    }

    /// The rank's connection ended without a farewell.
    package mutating func vanished(_ rank: Int) {
        if ranks.indices.contains(rank), !ranks[rank].hasLeft { ranks[rank].isGone = true }
    }

    /// Whoever listens was asleep: nobody is to blame for what it did not hear.
    package mutating func forgive(now: Double) {
        movedAt = now
        for rank in ranks.indices { ranks[rank].heardAt = now }
    }

    // MARK: What follows

    /// Whether a rank's connection has ended.
    var hasLost: Bool { ranks.contains { $0.isGone && !$0.hasLeft } }

    /// Rank 0 was itself stopped, and the others have gone meanwhile.
    func givenUp(after seconds: Double) -> Verdict {
        Verdict(
            message:
                "rank 0 on \(ranks[0].host): was stopped for \(duration(seconds)), and the others have given it up",
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

    /// nil while there is nothing to complain of.
    package func verdict(now: Double) -> Verdict? {
        let present = members(now: now).filter { !ranks[$0.rank].hasLeft }
        guard let first = present.first else { return nil }
        let gone = present.filter(\.isGone)
        if !gone.isEmpty { return blame(gone, "died", among: present) }
        let silent = present.filter {
            $0.silentSeconds > (ranks[$0.rank].hasJoined ? limits.silence : limits.joining)
        }
        if let longest = silent.map(\.silentSeconds).max() {
            return blame(silent, "not heard for \(duration(longest.rounded(.down)))", among: present)
        }
        let slowest = present.min { Self.isBehind($0, $1) } ?? first
        let limit = limits.standstill(in: slowest.reading.phase, stepSeconds: stepSeconds)
        guard now - movedAt > limit else { return nil }
        let late = present.filter { !Self.isBehind(slowest, $0) }
        guard late.count < present.count else {
            return Verdict(
                message:
                    "step \(slowest.reading.step): all \(present.count) ranks have been \(slowest.reading.phase.words) "
                    + "for more than \(duration(limit)): messages between them are lost, or a disk does not answer",
                missing: [])
        }
        return blame(late, "has not got on for \(duration(limit))", among: present)
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

    /// Whether the first has done less than the second. What is done between two steps bears the number of the step
    /// that follows.
    private static func isBehind(_ a: Member, _ b: Member) -> Bool {
        func place(_ reading: RankActivity.Reading) -> (Int, Int, Int) {
            (reading.step, reading.phase.isInStep ? 1 : 0, reading.phase.order)
        }
        return place(a.reading) < place(b.reading)
    }

    /// The host whose ranks work longest for a step while the others wait, and how many times the median that is; nil
    /// where there is one host alone.
    package func slowestHost(now: Double) -> (host: String, ratio: Double)? {
        let own = members(now: now).filter { $0.reading.ownSeconds > 0 }
        guard Set(own.map(\.host)).count > 1 else { return nil }
        let sorted = own.map(\.reading.ownSeconds).sorted()
        let slowest = own.max { $0.reading.ownSeconds < $1.reading.ownSeconds }!
        return (slowest.host, slowest.reading.ownSeconds / sorted[(sorted.count - 1) / 2])
    }
}
