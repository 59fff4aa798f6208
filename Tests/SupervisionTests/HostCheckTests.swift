import Foundation
import Supervision
import Testing

/// Tests which hosts are reported as different if not all are in the same state.
@Suite struct HostCheckTests {
    private static let marker = HostCheck.Marker(text: "seen", folder: "/shared/run")

    private static func report(
        _ name: String, build: String = "1", mpi: String = "4.1.4", marker: String? = "seen"
    ) -> HostReport {
        var report = HostReport.own(peers: [], marker: nil)
        (report.host, report.programChecksum, report.mpi) = (name, build, "Open MPI \(mpi)")
        (report.marker, report.time) = (marker, 1000)
        return report
    }

    private func check(_ reports: [HostReport], own: HostReport? = nil) -> HostCheck {
        HostCheck(
            reports.map { HostCheck.Subject($0.host, $0) }, own: own ?? reports[0], marker: Self.marker,
            askedAt: 1000)
    }

    @Test func hostsThatAgreeAreGood() {
        #expect(check(["a", "b", "c"].map { Self.report($0) }).faults == [])
    }

    /// Also if the host that differs is listed first.
    @Test(arguments: [0, 1, 2]) func theMinorityIsBlamed(odd: Int) {
        var builds = ["1", "1", "1"]
        builds[odd] = "2"
        let reports = zip(["a", "b", "c"], builds).map { Self.report($0, build: $1) }
        let found = check(reports, own: Self.report("a"))
        #expect(found.badHosts == [["a", "b", "c"][odd]])
        #expect(found.faults.count == 1)
        #expect(found.faults[0].line.hasPrefix("\(["a", "b", "c"][odd]): has disttrain"))
    }

    @Test func otherReleasesOfOpenMPIAreBlamed() {
        let found = check([Self.report("a"), Self.report("b"), Self.report("c", mpi: "5.0.1")])
        #expect(found.badHosts == ["c"])
    }

    @Test func inATieThisHostDecides() {
        let reports = [Self.report("a", build: "1"), Self.report("b", build: "2")]
        #expect(check(reports, own: reports[0]).badHosts == ["b"])
        #expect(check(reports, own: reports[1]).badHosts == ["a"])
    }

    @Test func aHostWithoutTheFolderIsBlamed() {
        let found = check(
            [Self.report("a", marker: nil), Self.report("b"), Self.report("c")], own: Self.report("b"))
        #expect(found.badHosts == ["a"])
        #expect(found.faults[0].line.hasPrefix("a: does not share /shared/run with b"))
    }

    /// If the launcher's host is the one that differs, no remedy is suggested for the others.
    @Test func aLauncherWithoutTheFolderIsBlamed() {
        let found = check([Self.report("a"), Self.report("b", marker: nil), Self.report("c", marker: nil)])
        #expect(found.badHosts == ["b", "c"])
        #expect(Set(found.faults.map(\.line)).count == 1)
        #expect(found.faults[0].line.hasPrefix("a: does not share /shared/run with 2 of 3 hosts"))
    }

    /// mpirun runs on this host and cannot start ranks with another release, even if most hosts have that one.
    @Test func mpirunsOwnReleaseIsNeeded() {
        let reports = [Self.report("a"), Self.report("b", mpi: "5.0.1"), Self.report("c", mpi: "5.0.1")]
        #expect(check(reports).badHosts == ["a", "b", "c"])
    }

    @Test func aClockThatIsOffIsOnlyAWarning() {
        var late = Self.report("b")
        late.time = 900
        let found = check([Self.report("a"), late])
        #expect(found.badHosts == [] && found.faults.count == 1)
    }
}
