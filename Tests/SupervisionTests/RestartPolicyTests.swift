import Supervision
import Testing

@Suite struct RestartPolicyTests {
    /// - Parameter step: step of the newest checkpoint; checkpoints are 50 steps apart.
    private func crash(_ step: Int?, trained: Bool = true, code: Int32 = 1) -> RestartPolicy.Outcome {
        RestartPolicy.Outcome(
            exitStatus: code, hasTrained: trained,
            checkpoints: step.map { Array(stride(from: $0 % 50 == 0 ? 50 : $0, through: $0, by: 50)) } ?? [])
    }

    private func fault(_ step: Int?, checkpoint: Int = 100) -> RestartPolicy.Outcome {
        RestartPolicy.Outcome(exitStatus: 4, hasTrained: true, checkpoints: [checkpoint], faultStep: step)
    }

    private func loss(_ step: Int) -> RestartPolicy.Outcome {
        RestartPolicy.Outcome(exitStatus: 1, hasTrained: true, checkpoints: [50, step], hasLostHosts: true)
    }

    private func expectGivesUp(_ decision: RestartPolicy.Decision, _ words: String = "") {
        guard case .giveUp(let reason) = decision else {
            Issue.record("not given up: \(decision)")
            return
        }
        if !words.isEmpty { #expect(reason.contains(words)) }
    }

    @Test(arguments: [0, 2, 3, 75] as [Int32]) func whatWouldHappenAgainEnds(code: Int32) {
        var policy = RestartPolicy(maxRestarts: 3)
        #expect(policy.decide(crash(nil, code: code)) == .end(code))
    }

    @Test(arguments: [1, 137, 134, 205] as [Int32]) func aCrashIsStartedAgain(code: Int32) {
        var policy = RestartPolicy(maxRestarts: 3)
        #expect(policy.decide(crash(100, code: code)) == .restart(after: 1, from: .newest))
    }

    @Test(arguments: [1, 4, 74] as [Int32]) func withoutRestartsItEnds(code: Int32) {
        var policy = RestartPolicy(maxRestarts: 0)
        expectGivesUp(policy.decide(crash(100, code: code)))
    }

    /// The second crash at the same step goes back by one checkpoint; the third ends the job.
    @Test func theSameStepTwiceGoesBack() {
        var policy = RestartPolicy(maxRestarts: 9, committedStep: 100)
        #expect(policy.decide(crash(100)) == .restart(after: 1, from: .newest))
        #expect(policy.decide(crash(100)) == .restart(after: 2, from: .before(step: 100)))
        // The newest was set aside; the one before is now the newest.
        expectGivesUp(policy.decide(crash(50)), "3 times after the checkpoint of step 100")
    }

    /// After a start that fails before training, the next one uses the same checkpoint and not an older one.
    @Test func goesBackOnlyOnce() {
        var policy = RestartPolicy(maxRestarts: 9, committedStep: 100)
        _ = policy.decide(crash(100))
        _ = policy.decide(crash(100))
        #expect(policy.decide(crash(100, trained: false)) == .restart(after: 4, from: .before(step: 100)))
        #expect(policy.decide(crash(50, trained: false)) == .restart(after: 8, from: .before(step: 100)))
    }

    @Test func withNothingToGoBackToItEnds() {
        var policy = RestartPolicy(maxRestarts: 9, committedStep: 100)
        let only = RestartPolicy.Outcome(exitStatus: 1, hasTrained: true, checkpoints: [100])
        _ = policy.decide(only)
        expectGivesUp(policy.decide(only), "no earlier one")
    }

    @Test func aNewCheckpointRenewsTheBudget() {
        var policy = RestartPolicy(maxRestarts: 1)
        for step in stride(from: 100, through: 5000, by: 100) {
            #expect(policy.decide(crash(step)) == .restart(after: 1, from: .newest))
        }
        expectGivesUp(policy.decide(crash(5000, trained: false)))
    }

    /// A host that does not come up does not cause a return to an older checkpoint.
    @Test func startsThatNeverTrainedWaitLongerEachTime() {
        var policy = RestartPolicy(maxRestarts: 8, committedStep: 10)
        var pauses: [Double] = []
        for _ in 0..<8 {
            if case .restart(let pause, .newest) = policy.decide(crash(10, trained: false)) {
                pauses.append(pause)
            }
        }
        #expect(pauses == [1, 2, 4, 8, 16, 32, 60, 60])
        expectGivesUp(policy.decide(crash(10, trained: false)))
    }

    // MARK: Storage faults

    /// They consume the restart budget, with long pauses, but never discard a checkpoint.
    @Test func storageFaultsNeverGoBack() {
        var policy = RestartPolicy(maxRestarts: 6, committedStep: 100)
        var pauses: [Double] = []
        for _ in 0..<6 {
            if case .restart(let pause, .newest) = policy.decide(crash(100, code: 74)) {
                pauses.append(pause)
            }
        }
        #expect(pauses == [10, 20, 40, 80, 160, 300])
        expectGivesUp(policy.decide(crash(100, code: 74)), "--max-restarts")
    }

    @Test func aStorageFaultAfterTwoCrashesDoesNotGoBackFurther() {
        var policy = RestartPolicy(maxRestarts: 9, committedStep: 100)
        _ = policy.decide(crash(100))
        #expect(policy.decide(crash(100, code: 74)) == .restart(after: 20, from: .newest))
        #expect(policy.decide(crash(100)) == .restart(after: 4, from: .before(step: 100)))
    }

    // MARK: Numerical faults

    @Test func aNumericalFaultGetsOneRestart() {
        var policy = RestartPolicy(maxRestarts: 3, committedStep: 100)
        #expect(policy.decide(fault(117)) == .restart(after: 1, from: .newest))
        expectGivesUp(policy.decide(fault(117)), "twice at the same step (117), so it is not a bit flip")
    }

    /// Two faults at the same step are the same fault, even if a checkpoint was committed in between.
    @Test func aCheckpointBeforeTheSameFaultChangesNothing() {
        var policy = RestartPolicy(maxRestarts: 3, committedStep: 100)
        _ = policy.decide(fault(117))
        expectGivesUp(policy.decide(fault(117, checkpoint: 110)), "twice")
    }

    /// Bit flips at two steps: two restarts, and no checkpoint is discarded.
    @Test func faultsAtDifferentStepsUseTheBudget() {
        var policy = RestartPolicy(maxRestarts: 3, committedStep: 100)
        for (count, step) in [117, 130, 109].enumerated() {
            #expect(policy.decide(fault(step)) == .restart(after: Double(1 << count), from: .newest))
        }
        expectGivesUp(policy.decide(fault(140)), "--max-restarts")
    }

    @Test func faultsAtUnknownStepsAreTheSame() {
        var policy = RestartPolicy(maxRestarts: 3)
        #expect(policy.decide(fault(nil)) == .restart(after: 1, from: .newest))
        expectGivesUp(policy.decide(fault(nil)), "twice in a row")
    }

    // MARK: Lost hosts

    @Test func lostHostsCostNoCheckpointAndNoBudget() {
        var policy = RestartPolicy(maxRestarts: 1, committedStep: 100)
        for _ in 0..<5 {
            guard case .restart(_, .newest) = policy.decide(loss(100)) else {
                Issue.record("a lost host costs a checkpoint or the budget")
                return
            }
        }
        #expect(policy.restarts == 0)
        #expect(policy.decide(crash(100)) == .restart(after: 1, from: .newest))
    }

    /// Hosts that fail repeatedly do not cause an endless loop.
    @Test func lossesWithoutProgressHaveALimit() {
        var policy = RestartPolicy(maxRestarts: 1, committedStep: 100)
        var pauses: [Double] = []
        while case .restart(let pause, _) = policy.decide(loss(100)) { pauses.append(pause) }
        #expect(pauses.count == RestartPolicy.lossLimit)
        #expect(pauses.prefix(10) == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300])
        // A new checkpoint resets the budget.
        #expect(policy.decide(loss(150)) == .restart(after: 1, from: .newest))
    }
}
