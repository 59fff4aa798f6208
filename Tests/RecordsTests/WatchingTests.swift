import Foundation
import Records
import Support
import Synchronization
import Testing

@Suite struct JobWatchTests {
    private func reading(
        _ phase: RankActivity.Phase, step: Int, ticks: Int, seconds: Double = 1
    ) -> RankActivity.Reading {
        RankActivity.Reading(
            phase: phase, step: step, ticks: ticks, seconds: 0, stepSeconds: seconds, ownSeconds: seconds)
    }

    /// Three ranks heard at time 0, all in `phase` of step 7.
    private func watch(_ phase: RankActivity.Phase = .compute, stepSeconds: Double = 1) -> JobWatch {
        var watch = JobWatch(ranks: 3, limits: WatchLimits(), now: 0)
        for rank in 0..<3 {
            watch.joined(rank, host: "node\(rank)", pid: Int32(100 + rank), now: 0)
            watch.heard(rank, reading(phase, step: 7, ticks: 1, seconds: stepSeconds), now: 0)
        }
        return watch
    }

    @Test func ranksThatGetOnAreLeftAlone() {
        var watch = watch()
        for second in 1..<100 {
            for rank in 0..<3 {
                watch.heard(rank, reading(.compute, step: 7 + second, ticks: second + 1), now: Double(second))
            }
            #expect(watch.verdict(now: Double(second)) == nil)
        }
    }

    @Test("a long step raises the progress timeout for the next steps, also with many ranks")
    func longStepIsRemembered() {
        var watch = JobWatch(ranks: 64, limits: WatchLimits(), now: 0)
        for rank in 0..<64 { watch.joined(rank, host: "node", pid: 1, now: 0) }
        for step in 1...5 {
            for rank in 0..<64 {
                let seconds = step == 1 ? 60.0 : 1
                watch.heard(
                    rank, reading(.compute, step: step, ticks: step, seconds: seconds), now: Double(step))
            }
        }
        for second in 6...65 {
            for rank in 0..<64 {
                watch.heard(rank, reading(.compute, step: 5, ticks: 5), now: Double(second))
            }
        }
        #expect(watch.verdict(now: 65) == nil)
    }

    @Test func aRankThatIsNotHeardIsMissing() {
        var watch = watch()
        for second in 1...20 {
            for rank in [0, 2] { watch.heard(rank, reading(.reduce, step: 7, ticks: 2), now: Double(second)) }
        }
        #expect(watch.verdict(now: 14.9) == nil)
        let verdict = watch.verdict(now: 15.1)
        #expect(verdict?.missing == [1])
        #expect(verdict?.message.contains("rank 1 on node1: no heartbeat for 15 s") == true)
        #expect(verdict?.message.contains("the other 2 ranks: waiting for gradients, step 7") == true)
    }

    @Test func aRankThatDiesIsMissingAtOnce() {
        var watch = watch()
        watch.vanished(2)
        #expect(watch.verdict(now: 0.1)?.missing == [2])
        #expect(watch.verdict(now: 0.1)?.message.contains("rank 2 on node2: died") == true)
    }

    @Test func aRankThatSaidFarewellIsNot() {
        var watch = watch()
        watch.left(2)
        watch.vanished(2)
        #expect(watch.verdict(now: 0.1) == nil)
    }

    /// All ranks send heartbeats; two wait for gradients, and one computes forever.
    @Test func aRankThatHangsIsNamed() {
        var watch = watch()
        for second in 1...30 {
            watch.heard(0, reading(.reduce, step: 7, ticks: 2), now: Double(second))
            watch.heard(1, reading(.compute, step: 7, ticks: 1), now: Double(second))
            watch.heard(2, reading(.reduce, step: 7, ticks: 2), now: Double(second))
        }
        #expect(watch.verdict(now: 20.5) == nil)
        let verdict = watch.verdict(now: 21.5)
        #expect(verdict?.missing == [1])
        #expect(verdict?.message.contains("no progress for 20 s, last seen computing in step 7") == true)
    }

    @Test func ranksThatAllWaitBlameTheNetwork() {
        var watch = watch()
        for second in 1...30 {
            for rank in 0..<3 { watch.heard(rank, reading(.reduce, step: 7, ticks: 2), now: Double(second)) }
        }
        #expect(watch.verdict(now: 30)?.missing == [])
        #expect(
            watch.verdict(now: 30)?.message.contains("all 3 ranks have been waiting for gradients") == true)
    }

    @Test(arguments: [
        (RankActivity.Phase.compute, 1.0, 20.0), (.compute, 10, 50), (.save, 1, 600), (.start, 1, 300),
        (.compute, 0, 300), (.sample, 1, 600),
    ])
    func theLimitFollowsPhaseAndStepTime(phase: RankActivity.Phase, stepSeconds: Double, limit: Double) {
        var watch = watch(phase, stepSeconds: stepSeconds)
        func beat(_ now: Double) {
            for rank in 0..<3 {
                watch.heard(rank, reading(phase, step: 7, ticks: 1, seconds: stepSeconds), now: now)
            }
        }
        beat(limit - 1)
        #expect(watch.verdict(now: limit - 1) == nil)
        beat(limit + 1)
        #expect(watch.verdict(now: limit + 1) != nil)
    }

    @Test func whoWasAsleepBlamesNobody() {
        var watch = watch()
        watch.forgive(now: 1000)
        #expect(watch.verdict(now: 1001) == nil)
        #expect(watch.verdict(now: 1016)?.missing == [0, 1, 2])
    }

    @Test func collectiveTimeoutIsTheLimit() {
        let limits = WatchLimits(collectiveTimeout: 5)
        #expect(limits.step == 5 && limits.silence == 5 && limits.storage == WatchLimits().storage)
        #expect(WatchLimits(collectiveTimeout: 120).silence == WatchLimits().silence)
    }

    @Test func theSlowestHostIsNamed() throws {
        var watch = JobWatch(ranks: 3, limits: WatchLimits(), now: 0)
        for (rank, seconds) in [1.0, 1.5, 1.0].enumerated() {
            watch.joined(rank, host: "node\(rank)", pid: 1, now: 0)
            watch.heard(rank, reading(.compute, step: 3, ticks: 1, seconds: seconds), now: 0)
        }
        let slowest = try #require(watch.slowestHost(now: 0))
        #expect(slowest.host == "node1" && slowest.ratio == 1.5)
    }
}

@Suite struct TimeSpanTests {
    @Test(arguments: [
        ("90", 90), ("90s", 90), ("1.5m", 90), ("3h50m", 13800), ("1d2h", 93600), ("10:30", 630),
        ("3:49:57", 13797), ("1-02:00:00", 93600), ("2-03:30", 185_400), ("0.5s", 0.5),
    ])
    func reads(text: String, seconds: Double) { #expect(TimeSpan.seconds(text) == seconds) }

    @Test(arguments: [
        "", "h", "3x", "5m3h", "1h1h", "-5", "1:2:3:4", "a:b", "1-2", "3h50", "UNLIMITED", "nan", "1e3",
    ])
    func refuses(text: String) { #expect(TimeSpan.seconds(text) == nil) }
}

@Suite struct StorageWatchTests {
    private func reading(_ phase: RankActivity.Phase, step: Int, ticks: Int) -> RankActivity.Reading {
        RankActivity.Reading(
            phase: phase, step: step, ticks: ticks, seconds: 0, stepSeconds: 1, ownSeconds: 1)
    }

    private func watch(_ limits: WatchLimits = WatchLimits()) -> JobWatch {
        var watch = JobWatch(ranks: 2, limits: limits, now: 0)
        for rank in 0..<2 { watch.joined(rank, host: "node\(rank)", pid: 1, now: 0) }
        return watch
    }

    /// Only rank 0 writes metrics and waits for the disk; rank 1 is in the following step.
    @Test(arguments: [RankActivity.Phase.record, .save, .sample, .evaluate, .export, .data])
    func aStalledDiskIsWaitedFor(phase: RankActivity.Phase) {
        var watch = watch()
        for second in 1...700 {
            watch.heard(0, reading(phase, step: 8, ticks: 2), now: Double(second))
            watch.heard(1, reading(.reduce, step: 8, ticks: 2), now: Double(second))
            #expect((watch.verdict(now: Double(second)) == nil) == (second <= 601), "after \(second) s")
        }
        #expect(watch.verdict(now: 700)?.missing == [0])
    }

    /// A save that takes an hour but makes progress.
    @Test func aSlowSaveIsWaitedFor() {
        var watch = watch()
        for second in 1...3600 {
            for rank in 0..<2 {
                watch.heard(rank, reading(.save, step: 8, ticks: second / 300), now: Double(second))
            }
            #expect(watch.verdict(now: Double(second)) == nil)
        }
    }

    @Test func theLimitIsTheUsers() {
        let limits = WatchLimits(collectiveTimeout: nil, storageTimeout: 30)
        var watch = watch(limits)
        for second in 1...40 {
            for rank in 0..<2 {
                watch.heard(rank, reading(.save, step: 8, ticks: 2), now: Double(second))
            }
        }
        #expect(watch.verdict(now: 30) == nil)
        #expect(watch.verdict(now: 32) != nil)
        #expect(limits.silence == WatchLimits().silence && limits.step == WatchLimits().step)
    }

    /// A rank that is still connecting is not subject to the heartbeat timeout.
    @Test func ranksMayTakeAWhileToJoin() {
        var watch = JobWatch(ranks: 2, limits: WatchLimits(collectiveTimeout: 2), now: 0)
        watch.joined(0, host: "node0", pid: 1, now: 0)
        for second in 1...32 {
            watch.heard(0, reading(.start, step: 0, ticks: 1), now: Double(second))
        }
        #expect(watch.verdict(now: 29) == nil)
        #expect(watch.verdict(now: 32)?.missing == [1])
    }

    /// Reads and writes count as progress in phases that use storage; within a step they would hide a hang in
    /// training.
    @Test func piecesAreProgressWhileAPhaseUsesStorage() {
        let activity = RankActivity()
        activity.enter(.save, step: 3)
        var ticks = activity.reading.ticks
        StorageProgress.advance()
        #expect(activity.reading.ticks > ticks)
        activity.enter(.compute)
        ticks = activity.reading.ticks
        StorageProgress.advance()
        #expect(activity.reading.ticks == ticks)
    }
}

@Suite struct OpenFileLimitTests {
    @Test func whatIsMissingIsSaid() {
        OpenFileLimit.raise()
        #expect(OpenFileLimit.shortage(of: 1, for: "a test") == nil)
        let line = OpenFileLimit.shortage(of: 1 << 40, for: "connections to 1024 ranks")
        #expect(line?.contains("are needed for connections to 1024 ranks") == true)
    }
}

@Suite struct StatusWriterTests {
    private func status(_ beat: Int) -> JobStatus {
        let text = """
            {"state":"running","attempt":"","beat":\(beat),"startedAt":0,"updatedAt":0,"name":"","steps":1,"ranks":[]}
            """
        return try! JSONDecoder().decode(JobStatus.self, from: Data(text.utf8))
    }

    @Test func theLastValueIsWritten() {
        let written = Mutex<[Int]>([])
        let writer = StatusWriter { status in written.withLock { $0.append(status.beat) } }
        for beat in 1...100 { writer.submit(status(beat)) }
        #expect(writer.finish(status(101), within: 60))
        #expect(written.withLock { $0.last } == 101)
        #expect(written.withLock { $0 == $0.sorted() })
    }

    /// An unresponsive disk blocks neither `submit` nor `finish`.
    @Test func aStalledDiskHoldsNobodyUp() {
        let thaw = DispatchSemaphore(value: 0)
        let written = Mutex<[Int]>([])
        let writer = StatusWriter { status in
            thaw.wait()
            written.withLock { $0.append(status.beat) }
        }
        for beat in 1...1000 { writer.submit(status(beat)) }
        #expect(!writer.finish(status(1001), within: 0.2))
        #expect(written.withLock { $0.isEmpty })
        for _ in 0..<3 { thaw.signal() }
    }
}

@Suite struct HostNetworkTests {
    private let network = HostNetwork(interfaces: [
        HostNetwork.Interface(name: "lo", address: "127.0.0.1", prefix: 8),
        HostNetwork.Interface(name: "eth0", address: "10.1.0.5", prefix: 24),
        HostNetwork.Interface(name: "ib0", address: "192.168.7.5", prefix: 16),
        HostNetwork.Interface(name: "docker0", address: "172.17.0.1", prefix: 16),
    ])

    private func listens(_ peers: [[String]], _ chosen: String? = nil) -> [String] {
        network.listeningAddresses(peers: peers, chosen: chosen) { _ in "10.1.0.5" }
    }

    @Test func aJobOnOneHostListensOnLoopback() {
        #expect(listens([]) == ["127.0.0.1"])
        #expect(listens([], "10.1.0.0/24") == ["127.0.0.1"])
    }

    @Test(arguments: [
        ("ib0", ["192.168.7.5"]), ("192.168.0.0/16", ["192.168.7.5"]),
        ("10.1.0.0/24, ib0", ["10.1.0.5", "192.168.7.5"]),
    ]) func itListensWhereOpenMPIDoes(chosen: String, addresses: [String]) {
        #expect(listens([["10.1.0.6", "192.168.7.6"]], chosen) == addresses)
    }

    /// docker0 has the same address on every host and does not connect hosts.
    @Test func otherwiseWhereTheOtherHostsAre() {
        #expect(listens([["127.0.0.1", "10.1.0.6", "172.17.0.1"]]) == ["10.1.0.5"])
        #expect(listens([["10.1.0.6"], ["192.168.9.1"]]) == ["10.1.0.5", "192.168.7.5"])
        // An address outside our subnets: use the route.
        #expect(listens([["10.9.0.6", "172.17.0.1"]]) == ["10.1.0.5"])
        #expect(listens([["10.1.0.6"]], "eth9") == ["10.1.0.5"])
    }
}
