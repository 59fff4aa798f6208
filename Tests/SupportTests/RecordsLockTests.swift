import Checkpointing
import Foundation
import Support
import Testing
import TestSupport

/// Short timeouts in seconds, to keep tests fast.
private let quick = RunLock.Timing(interval: 0.05, grace: 0.5, patience: 0.2)

/// A folder with lock files, as other processes and hosts would leave them.
private final class LockScratch: @unchecked Sendable {
    // Unchecked: all state is immutable after init.
    let scratch: ScratchFolder
    var path: String { scratch.path }
    /// The record that this process writes as a holder.
    private let own: JSONObject

    init() throws {
        scratch = try ScratchFolder()
        let example = try ScratchFolder()
        let lock = try RunLock.take(example.path, timing: quick)
        let bytes = try Data(contentsOf: URL(fileURLWithPath: example.file(".lock/1.json")))
        lock.release()
        own = try #require(try JSONValue(parsing: [UInt8](bytes)[...]).objectValue)
    }

    func take(_ note: (String) -> Void = { _ in }) throws -> RunLock {
        try RunLock.take(path, timing: quick, note: note)
    }

    var files: [String] {
        ((try? FileManager.default.contentsOfDirectory(atPath: scratch.file(".lock"))) ?? []).sorted()
    }

    func bytes(_ number: Int) throws -> Data {
        try Data(contentsOf: URL(fileURLWithPath: scratch.file(".lock/\(number).json")))
    }

    func write(_ data: Data, _ number: Int) throws {
        let folder = scratch.file(".lock")
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        // Atomic, because a holder overwrites its file in place and a reader must never find a truncated one.
        try data.write(to: URL(fileURLWithPath: "\(folder)/\(number).json"), options: .atomic)
    }

    /// A lock file of this process with some members replaced.
    func record(_ changes: [String: JSONValue]) throws -> Data {
        var object = own
        for (key, value) in changes {
            #expect(object[key] != nil)
            object[key] = value
        }
        return Data(try JSONValue.object(object).text().utf8)
    }

    /// The error if another process holds the lock now, otherwise nil.
    func refusal() -> RunLockError? {
        do {
            try take().release()
            return nil
        } catch {
            return error as? RunLockError
        }
    }
}

/// A process that sleeps until it is killed.
private final class Sleeper {
    let process = Process()
    var pid: Int32 { process.processIdentifier }

    init() throws {
        process.executableURL = URL(fileURLWithPath: "/bin/sleep")
        process.arguments = ["600"]
        try process.run()
    }

    deinit { kill(pid, SIGKILL) }

    /// Field 22 of /proc/PID/stat, see proc(5); the process name contains no blanks.
    func start() throws -> String {
        let text = try String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8)
        return String(text.split(separator: " ")[21])
    }
}

@Suite struct RecordsLockTests {
    @Test func aSecondIsRefusedAndTouchesNothing() throws {
        let folder = try LockScratch()
        let lock = try folder.take()
        #expect(lock.isHeld)
        let error = try #require(folder.refusal())
        #expect(error.message.hasPrefix("\(folder.path): is in use by another run, process \(getpid()) on "))
        #expect(error.message.contains(" since ") && error.message.contains("last heartbeat "))
        #expect(error.exitStatus == ExitStatus.usage)
        #expect(folder.files == ["1.json"])
        try lock.check()

        lock.release()
        lock.release()
        #expect(!lock.isHeld)
        let next = try folder.take()
        #expect(folder.files == ["2.json"] && next.isHeld)
        next.release()
    }

    @Test func aRunsFolderIsLocked() throws {
        let scratch = try ScratchFolder()
        let run = try RunFolder.open(scratch.file("run"), name: "tiny", resume: .auto, timing: quick)
        try run.writeConfiguration("name: tiny\n")
        #expect(throws: RunLockError.self) {
            try RunFolder.open(run.path, name: "tiny", resume: .auto, timing: quick)
        }
        run.lock?.release()
        // If it throws for another reason, it releases the lock.
        #expect(throws: RunFolderError.self) {
            try RunFolder.open(run.path, name: "other", resume: .auto, timing: quick)
        }
        try RunFolder.open(run.path, name: "tiny", resume: .auto, timing: quick).lock?.release()
    }

    @Test func showsThatItLives() async throws {
        let folder = try LockScratch()
        let lock = try folder.take()
        defer { lock.release() }
        func heartbeat() throws -> Int {
            try #require(try JSONValue(parsing: [UInt8](folder.bytes(1))[...])["heartbeat"]?.intValue)
        }
        let first = try heartbeat()
        let size = try folder.bytes(1).count
        while try heartbeat() < first + 3 { try await Task.sleep(for: .milliseconds(10)) }
        #expect(try folder.bytes(1).count == size)
    }

    @Test func aDeadProcessOfThisHostReleasesAtOnce() throws {
        let folder = try LockScratch()
        let sleeper = try Sleeper()
        let record = try folder.record([
            "pid": .integer(Int(sleeper.pid)), "process_start": .string(try sleeper.start()),
        ])
        try folder.write(record, 7)
        #expect(folder.refusal()?.message.contains("process \(sleeper.pid) on ") == true)
        #expect(folder.files == ["7.json"])

        kill(sleeper.pid, SIGSTOP)
        #expect(folder.refusal() != nil)
        kill(sleeper.pid, SIGKILL)
        sleeper.process.waitUntilExit()
        var notes: [String] = []
        let lock = try folder.take { notes.append($0) }
        #expect(notes.isEmpty && folder.files == ["8.json"])
        lock.release()
    }

    @Test func aProcessOfTheSameNumberIsAnother() throws {
        let folder = try LockScratch()
        let sleeper = try Sleeper()
        let start = try #require(UInt64(try sleeper.start()))
        try folder.write(
            try folder.record([
                "pid": .integer(Int(sleeper.pid)), "process_start": .string(String(start - 1)),
            ]), 1)
        var notes: [String] = []
        let lock = try folder.take { notes.append($0) }
        #expect(notes.isEmpty)
        lock.release()
    }

    /// Not visible from here: the process ID has no meaning there, although no such process exists here.
    @Test(arguments: ["host", "boot_id", "process_namespace"])
    func aSilentHolderElsewhereIsGivenTime(member: String) throws {
        let folder = try LockScratch()
        // No process has this ID.
        let record = try folder.record([
            member: "elsewhere", "pid": 4_194_305, "heartbeat_at": "2999-01-01T00:00:00Z",
        ])
        try folder.write(record, 3)
        var notes: [String] = []
        let lock = try folder.take { notes.append($0) }
        #expect(notes.count == 1)
        #expect(notes.first?.contains("process 4194305 on ") == true)
        #expect(folder.files == ["4.json"])
        lock.release()
    }

    /// Lock files that a crash or a power failure may leave.
    @Test(arguments: [Data(), Data(count: 1024), Data("{\"kind\":\"disttrain lock\",\"pi".utf8)])
    func anUnfinishedLockIsGivenTime(bytes: Data) throws {
        let folder = try LockScratch()
        try folder.write(bytes, 1)
        var notes: [String] = []
        let lock = try folder.take { notes.append($0) }
        #expect(notes.count == 1 && notes[0].contains("an unfinished lock"))
        lock.release()
    }

    /// The wall clock may stand still or go backwards: only the heartbeat count matters.
    @Test func aHolderElsewhereThatLivesIsBelieved() throws {
        let folder = try LockScratch()
        let records = try (0..<2000).map { beat in
            try folder.record([
                "host": "elsewhere", "heartbeat": .integer(beat),
                "heartbeat_at": .string("\(2999 - beat)-01-01T00:00:00Z"),
            ])
        }
        try folder.write(records[0], 1)
        // Use a separate thread: a task could be blocked by the thread that waits here.
        let beating = Thread {
            for record in records where !Thread.current.isCancelled {
                try? folder.write(record, 1)
                usleep(20_000)
            }
        }
        beating.start()
        defer { beating.cancel() }
        let error = #expect(throws: RunLockError.self) {
            try RunLock.take(
                folder.path, timing: RunLock.Timing(interval: 0.05, grace: 60, patience: 0.2))
        }
        #expect(error?.message.contains(" on elsewhere since ") == true)
        #expect(folder.files == ["1.json"])
    }

    @Test func aHolderElsewhereThatEndsMakesWay() throws {
        let folder = try LockScratch()
        try folder.write(try folder.record(["host": "elsewhere"]), 1)
        let lock = try folder.take { _ in
            try? folder.write(try folder.record(["host": "elsewhere", "released": true]), 1)
        }
        #expect(lock.isHeld)
        lock.release()
    }

    @Test func aHolderSeesThatItsLockWasTaken() async throws {
        let folder = try LockScratch()
        let lock = try folder.take()
        try folder.write(try folder.record(["host": "elsewhere", "pid": 12]), 2)
        while lock.isHeld { try await Task.sleep(for: .milliseconds(5)) }
        let error = #expect(throws: RunLockError.self) { try lock.check() }
        #expect(error?.message.contains("was taken over by another run, process 12 on elsewhere") == true)
        // Releasing a lost lock does not modify the new holder's file.
        let theirs = try folder.bytes(2)
        lock.release()
        #expect(try folder.bytes(2) == theirs)
    }

    @Test func aLockThatWasRemovedIsLost() throws {
        let folder = try LockScratch()
        let lock = try folder.take()
        try lock.check()
        try FileManager.default.removeItem(atPath: folder.scratch.file(".lock"))
        let error = #expect(throws: RunLockError.self) { try lock.check() }
        #expect(error?.message.contains(".lock: has been removed while this run used it") == true)
        #expect(!lock.isHeld)
        // Another lock with the same number now exists; it must not be mistaken for this one.
        let other = try folder.take()
        #expect(folder.files == ["1.json"] && !lock.isHeld && other.isHeld)
        lock.release()
        #expect(other.isHeld)
        other.release()
    }

    /// If several processes find a dead holder at the same time, exactly one succeeds.
    @Test func oneOfManyTakesOver() async throws {
        for _ in 0..<10 {
            let folder = try LockScratch()
            try folder.write(try folder.record(["pid": 4_194_305]), 1)
            let locks = await withTaskGroup(of: RunLock?.self) { group in
                for _ in 0..<8 { group.addTask { try? folder.take() } }
                return await group.reduce(into: []) { $0.append($1) }
            }
            let holders = locks.compactMap { $0 }
            #expect(holders.count == 1)
            #expect(holders.first?.isHeld == true)
            #expect(folder.files == ["2.json"])
            for lock in holders { lock.release() }
        }
    }
}
