import Launcher
import Testing

@Suite struct RestartPolicyTests {
    private func crash(_ step: Int?, trained: Bool = true, code: Int32 = 1) -> RestartPolicy.Outcome {
        RestartPolicy.Outcome(exitStatus: code, hasTrained: trained, committedStep: step)
    }

    @Test(arguments: [0, 2, 3, 4, 75] as [Int32]) func whatWouldHappenAgainEnds(code: Int32) {
        var policy = RestartPolicy(maxRestarts: 3)
        #expect(policy.decide(crash(nil, code: code)) == .end(code))
    }

    @Test(arguments: [1, 137, 134, 205] as [Int32]) func aCrashIsStartedAgain(code: Int32) {
        var policy = RestartPolicy(maxRestarts: 3)
        #expect(policy.decide(crash(100, code: code)) == .restart(after: 1, from: .newest))
    }

    @Test func withoutRestartsItEnds() {
        var policy = RestartPolicy(maxRestarts: 0)
        guard case .giveUp = policy.decide(crash(100)) else {
            Issue.record("started again")
            return
        }
    }

    /// Twice at one step: one checkpoint back; once more: the end.
    @Test func theSameStepTwiceGoesBack() {
        var policy = RestartPolicy(maxRestarts: 9, committedStep: 100)
        #expect(policy.decide(crash(100), checkpoints: 2) == .restart(after: 1, from: .newest))
        #expect(policy.decide(crash(100), checkpoints: 2) == .restart(after: 2, from: .beforeNewest))
        // The newest was set aside; the one before is now the newest.
        guard case .giveUp(let reason) = policy.decide(crash(50), checkpoints: 1) else {
            Issue.record("started again")
            return
        }
        #expect(reason.contains("3 times after the checkpoint of step 100"))
    }

    @Test func withNothingToGoBackToItEnds() {
        var policy = RestartPolicy(maxRestarts: 9, committedStep: 100)
        _ = policy.decide(crash(100), checkpoints: 1)
        guard case .giveUp = policy.decide(crash(100), checkpoints: 1) else {
            Issue.record("started again")
            return
        }
    }

    @Test func aNewCheckpointRenewsTheBudget() {
        var policy = RestartPolicy(maxRestarts: 1)
        for step in stride(from: 100, through: 5000, by: 100) {
            #expect(policy.decide(crash(step)) == .restart(after: 1, from: .newest))
        }
        guard case .giveUp = policy.decide(crash(5000, trained: false)) else {
            Issue.record("started again")
            return
        }
    }

    /// A host that does not come up is no reason to go back.
    @Test func startsThatNeverTrainedWaitLongerEachTime() {
        var policy = RestartPolicy(maxRestarts: 8, committedStep: 10)
        var pauses: [Double] = []
        for _ in 0..<8 {
            if case .restart(let pause, .newest) = policy.decide(crash(10, trained: false)) {
                pauses.append(pause)
            }
        }
        #expect(pauses == [1, 2, 4, 8, 16, 32, 60, 60])
        guard case .giveUp = policy.decide(crash(10, trained: false)) else {
            Issue.record("started again")
            return
        }
    }
}
