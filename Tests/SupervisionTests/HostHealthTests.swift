import Supervision
import Testing

@Suite struct HostHealthTests {
    private let all: Set = ["a", "b", "c"]

    // MARK: Exclusion

    @Test func oneFailureExcludesNobody() {
        var health = HostHealth()
        health.failed(["a"], now: 0)
        #expect(health.exclusion(of: "a", now: 0) == nil)
    }

    @Test func excludedForLongerEachTime() {
        var health = HostHealth()
        health.failed(["a"], now: 0)
        var seconds: [Double] = []
        for now in stride(from: 10.0, to: 80_000, by: 10_000) {
            health.failed(["a"], now: now)
            seconds.append(health.exclusion(of: "a", now: now) ?? 0)
        }
        #expect(seconds == [60, 120, 240, 480, 960, 1920, 1920, 1920])
        #expect(health.exclusion(of: "b", now: 10) == nil)
    }

    @Test func theExclusionEnds() {
        var health = HostHealth()
        for now in [0.0, 1] { health.failed(["a"], now: now) }
        #expect(health.exclusion(of: "a", now: 60.5) == 0.5)
        #expect(health.exclusion(of: "a", now: 61) == nil)
    }

    @Test func aCheckpointClearsTheRecordOfThoseWhoTookPart() {
        var health = HostHealth()
        for now in [0.0, 1] { health.failed(["a", "b"], now: now) }
        health.committed(["b", "c"])
        #expect(health.exclusion(of: "a", now: 2) != nil)
        #expect(health.exclusion(of: "b", now: 2) == nil)
    }

    // MARK: Admission

    @Test func excludedHostsAreLeftOutWhileTheOthersAreEnough() {
        var health = HostHealth()
        for now in [0.0, 1] { health.failed(["b"], now: now) }
        #expect(health.admitted(["a", "b", "c"], now: 2) { $0.count >= 2 } == ["a", "c"])
        #expect(health.admitted(["a", "b", "c"], now: 2) { $0.count >= 3 } == ["a", "b", "c"])
        #expect(health.admitted(["a", "b", "c"], now: 70) { $0.count >= 2 } == ["a", "b", "c"])
    }

    /// The host whose exclusion ends first rejoins first, at its original position.
    @Test func asManyExcludedHostsAsNeededAreTaken() {
        var health = HostHealth()
        for now in [0.0, 1, 2] { health.failed(["a"], now: now) }
        for now in [0.0, 1] { health.failed(["b"], now: now) }
        #expect(health.admitted(["a", "b", "c"], now: 3) { $0.count >= 2 } == ["b", "c"])
    }

    // MARK: Attribution

    @Test func aHostThatDoesNotAnswerIsAtFault() {
        var health = HostHealth()
        #expect(health.attribute(unreachable: ["a", "b"], dead: ["c"], all: all) == ["a", "b"])
        #expect(health.attribute(unreachable: ["c"], dead: [], all: all) == ["c"])
    }

    @Test func oneHostAloneOrAllHostsAreNotAtFault() {
        var health = HostHealth()
        #expect(health.attribute(unreachable: [], dead: ["a"], all: ["a"]) == [])
        #expect(health.attribute(unreachable: ["a"], dead: ["a"], all: ["a"]) == [])
        #expect(health.attribute(unreachable: all, dead: [], all: all) == [])
        #expect(health.attribute(unreachable: [], dead: all, all: all) == [])
    }

    /// Crashes on every host are attributed to the program, not to the hosts.
    @Test func processesThatDieOnSeveralHostsAreTheJobsFault() {
        var health = HostHealth()
        #expect(health.attribute(unreachable: [], dead: ["a"], all: all) == ["a"])
        #expect(health.attribute(unreachable: [], dead: ["a"], all: all) == ["a"])
        #expect(health.attribute(unreachable: [], dead: ["b"], all: all) == [])
        #expect(health.attribute(unreachable: [], dead: ["a"], all: all) == [])
        health.committed(all)
        #expect(health.attribute(unreachable: [], dead: ["b"], all: all) == ["b"])
    }
}
