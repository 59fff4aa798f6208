import Foundation
import Records
import Supervision
import Synchronization
import Testing

@Suite struct StartWatchTests {
    private func watch() -> StartWatch { StartWatch(startTimeout: 300, limits: WatchLimits(), now: 0) }

    private func status(_ state: JobStatus.State, _ beat: Int) throws -> JobStatus {
        let text = """
            {"state":"\(state.rawValue)","attempt":"","beat":\(beat),"startedAt":0,"updatedAt":0,"name":"","steps":1,
            "ranks":[]}
            """
        return try JSONDecoder().decode(JobStatus.self, from: Data(text.utf8))
    }

    @Test func ranksMustComeUp() {
        var watch = watch()
        for second in 1...300 { #expect(watch.fault(nil, heartbeat: nil, now: Double(second)) == nil) }
        #expect(watch.fault(nil, heartbeat: nil, now: 301)?.contains("--start-timeout") == true)
    }

    /// status.json is not updated because its disk stalls, but the job is alive.
    @Test func heartbeatsAreEnough() throws {
        var watch = watch()
        let frozen = try status(.running, 7)
        for second in 1...600 {
            #expect(watch.fault(frozen, heartbeat: LauncherHeartbeat(second), now: Double(second)) == nil)
        }
        for second in 601...617 {
            #expect(watch.fault(frozen, heartbeat: LauncherHeartbeat(600), now: Double(second)) == nil)
        }
        let fault = watch.fault(frozen, heartbeat: LauncherHeartbeat(600), now: 619)
        #expect(fault?.contains("has sent no heartbeat for 18 s") == true)
    }

    @Test func opensDataForLongerThanTheStartTimeout() {
        var watch = watch()
        for second in 1...900 {
            #expect(watch.fault(nil, heartbeat: LauncherHeartbeat(second), now: Double(second)) == nil)
        }
    }

    /// After a suspension of the launcher itself.
    @Test func aSuspensionIsForgiven() throws {
        var watch = watch()
        #expect(watch.fault(try status(.running, 1), heartbeat: LauncherHeartbeat(1), now: 1) == nil)
        #expect(watch.fault(try status(.running, 1), heartbeat: LauncherHeartbeat(1), now: 100) == nil)
        #expect(watch.fault(try status(.running, 1), heartbeat: LauncherHeartbeat(1), now: 104) == nil)
    }

    @Test func whoIsDoneMustEnd() throws {
        var watch = watch()
        let done = try status(.finished, 9)
        for second in 1...6 {
            #expect(
                watch.fault(done, heartbeat: LauncherHeartbeat(9, .done), now: Double(second)) == nil)
        }
        #expect(watch.fault(done, heartbeat: LauncherHeartbeat(9, .done), now: 7) != nil)
    }

    /// Writing the last status and releasing the lock wait for the disk.
    @Test func whoIsDoneMayWaitForTheDisk() throws {
        var watch = watch()
        let frozen = try status(.running, 9)
        for second in 1...600 {
            let fault = watch.fault(
                frozen, heartbeat: LauncherHeartbeat(9, .done), now: Double(second))
            #expect(fault == nil)
        }
        #expect(watch.fault(frozen, heartbeat: LauncherHeartbeat(9, .done), now: 602) != nil)
    }

    /// Stopped ranks prevent mpirun from ending, and status.json may not exist yet or may not be writable.
    @Test func whoIsLostIsEnded() {
        var watch = watch()
        let lost = LauncherHeartbeat(9, .lost("rank 1 on node1: died"))
        #expect(watch.fault(nil, heartbeat: lost, now: 1) == nil)
        #expect(watch.fault(nil, heartbeat: lost, now: 1.9) == nil)
        #expect(watch.fault(nil, heartbeat: lost, now: 2.1) == "rank 1 on node1: died")
    }

    @Test func heartbeatsAreLines() {
        for beat in [
            LauncherHeartbeat(7), LauncherHeartbeat(8, .done),
            LauncherHeartbeat(9, .lost("rank 1 on b: died")),
        ] {
            #expect(LauncherHeartbeat(line: beat.line) == beat)
        }
        for line in [
            "", "disttrain-heartbeat", "disttrain-heartbeat x", "disttrain-heartbeat 7 over", "step 7",
        ] {
            #expect(LauncherHeartbeat(line: line) == nil)
        }
    }
}

@Suite struct LogWriterTests {
    @Test func linesAreInTheirFiles() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("logs-\(UUID())").path
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let writer = LogWriter()
        // More files than are kept open at the same time.
        for line in 0..<20 {
            for rank in 0..<100 { writer.append("line \(line)", to: "\(folder)/rank-\(rank).log") }
        }
        #expect(writer.finish(within: 60))
        let expected = (0..<20).map { "line \($0)\n" }.joined()
        for rank in 0..<100 {
            #expect(try String(contentsOfFile: "\(folder)/rank-\(rank).log", encoding: .utf8) == expected)
        }
    }

    /// Appending does not block, and lines that do not fit are counted.
    @Test func aStalledDiskHoldsNobodyUp() {
        let thaw = DispatchSemaphore(value: 0)
        let began = DispatchSemaphore(value: 0)
        let written = Mutex("")
        let writer = LogWriter(capacity: 100) { _, text in
            began.signal()
            thaw.wait()
            written.withLock { $0 += text }
        }
        writer.append("first", to: "log")
        began.wait()
        for _ in 0..<1000 { writer.append("123456789", to: "log") }
        #expect(!writer.finish(within: 0.2))
        for _ in 0..<3 { thaw.signal() }
        #expect(writer.finish(within: 60))
        let lines = written.withLock { $0 }.split(separator: "\n")
        #expect(lines.first == "first" && lines.dropFirst().first == "123456789")
        #expect(lines.last == "[990 lines were dropped: the disk did not respond]")
    }
}
