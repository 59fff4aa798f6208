import DistTrain
import Testing

@Suite struct JobWatchTests {
    private func reading(
        _ phase: RankActivity.Phase, step: Int, ticks: Int, seconds: Double = 1
    ) -> RankActivity.Reading {
        RankActivity.Reading(
            phase: phase, step: step, ticks: ticks, seconds: 0, stepSeconds: seconds, ownSeconds: seconds)
    }

    /// Three ranks that have been heard at time 0, all in `phase` of step 7.
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

    @Test func aRankThatIsNotHeardIsMissing() {
        var watch = watch()
        for second in 1...20 {
            for rank in [0, 2] { watch.heard(rank, reading(.reduce, step: 7, ticks: 2), now: Double(second)) }
        }
        #expect(watch.verdict(now: 14.9) == nil)
        let verdict = watch.verdict(now: 15.1)
        #expect(verdict?.missing == [1])
        #expect(verdict?.message.contains("rank 1 on node1: not heard for 15 s") == true)
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

    /// All talk, two wait for gradients, and one computes for ever.
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
        #expect(verdict?.message.contains("has not got on for 20 s, last seen computing in step 7") == true)
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
        #expect(limits.step == 5 && limits.silence == 5 && limits.files == WatchLimits().files)
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
