import Foundation

/// A process that holds, or has held, a run's folder: enough to tell it from every other process of every host.
package struct RunLockOwner: Sendable, Equatable {
    /// This start of the run.
    package var attempt: String
    package var host: String
    package var pid: Int32
    /// When the process started, in clock ticks since the host did: another process may get the same number later.
    package var processStart: UInt64?
    /// One boot of one kernel.
    package var bootID: String?
    /// Numbers of processes mean something within one namespace alone: containers share a kernel and its boot id.
    package var processNamespace: String?

    package init(
        attempt: String, host: String, pid: Int32, processStart: UInt64? = nil, bootID: String? = nil,
        processNamespace: String? = nil
    ) {
        self.attempt = attempt
        self.host = host
        self.pid = pid
        self.processStart = processStart
        self.bootID = bootID
        self.processNamespace = processNamespace
    }

    /// What this process can know of an owner.
    package enum State: Equatable {
        case alive, dead
        /// Out of sight: on another host or in another container.
        case unknown
    }

    package static func current(attempt: String) -> RunLockOwner {
        RunLockOwner(
            attempt: attempt, host: thisHost, pid: getpid(),
            processStart: ProcessEntry(of: getpid())?.start, bootID: thisBootID,
            processNamespace: thisNamespace)
    }

    private static var thisHost: String {
        var name = [CChar](repeating: 0, count: 256)
        // Cut short, it is still closed by the zero behind it.
        gethostname(&name, 255)
        return String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    private static var thisBootID: String? {
        (try? String(contentsOfFile: "/proc/sys/kernel/random/boot_id", encoding: .utf8))?
            .trimmingCharacters(in: .whitespacesAndNewlines)
    }

    private static var thisNamespace: String? {
        try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/ns/pid")
    }

    /// Whether the owner's process is one that this process could see, and whether it lives.
    package var state: State {
        guard let bootID, let processNamespace, host == Self.thisHost,
            bootID == Self.thisBootID, processNamespace == Self.thisNamespace
        else { return .unknown }
        if kill(pid, 0) != 0, errno == ESRCH { return .dead }
        // /proc may hide the processes of other users; one that can be signalled, or not by us, is there.
        guard let entry = ProcessEntry(of: pid) else { return .alive }
        if entry.isEnded { return .dead }
        if let processStart, entry.start != processStart { return .dead }
        return .alive
    }

    /// What the kernel says of a process on this host.
    private struct ProcessEntry {
        /// In clock ticks since boot.
        let start: UInt64
        /// Its parent has not yet asked how it ended.
        let isEnded: Bool

        /// nil where there is none, or it is hidden.
        package init?(of pid: Int32) {
            guard let text = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8),
                let name = text.lastIndex(of: ")")
            else { return nil }
            // After the name, which may hold anything: state is field 3 and starttime field 22 of proc(5).
            let fields = text[text.index(after: name)...].split(separator: " ")
            guard fields.count > 19, let start = UInt64(fields[19]) else { return nil }
            self.start = start
            isEnded = fields[0] == "Z" || fields[0] == "X"
        }
    }
}

/// What a lock file says.
struct RunLockRecord: Sendable, Equatable {
    package var owner: RunLockOwner
    /// When it was taken, by the owner's clock, and its last sign of life: for people, and never compared.
    package var since: String
    package var heartbeatAt: String
    /// Grows with every sign of life.
    package var heartbeat = 0
    /// The run has ended.
    package var isReleased = false

    /// "process 12 on node7 since 2030-01-02T03:04:05Z, last heartbeat 2030-01-02T03:05:05Z".
    package var summary: String {
        "process \(owner.pid) on \(owner.host) since \(since), last heartbeat \(heartbeatAt)"
    }

    /// Bytes of a record, whatever it says: it is rewritten in place, and must not change its length.
    private static let length = 1024

    package func encoded() -> [UInt8] {
        let json: JSONValue = [
            "kind": "disttrain lock", "attempt_id": .string(owner.attempt), "host": .string(owner.host),
            "pid": .integer(Int(owner.pid)),
            // As text: JSON numbers end at 63 bits.
            "process_start": owner.processStart.map { .string(String($0)) } ?? .null,
            "boot_id": owner.bootID.map { .string($0) } ?? .null,
            "process_namespace": owner.processNamespace.map { .string($0) } ?? .null,
            "since": .string(since), "heartbeat": .integer(heartbeat), "heartbeat_at": .string(heartbeatAt),
            "released": .bool(isReleased),
        ]
        // Without floating-point numbers, JSON can say anything.
        let text = Array(((try? json.text()) ?? "").utf8)
        return text + [UInt8](repeating: UInt8(ascii: " "), count: max(0, Self.length - 1 - text.count))
            + [UInt8(ascii: "\n")]
    }

    /// nil where the bytes are no whole record: a lock that was never finished, or not written by this program.
    package init?(_ bytes: [UInt8]) {
        guard let json = try? JSONValue(parsing: bytes[...]), json["kind"]?.stringValue == "disttrain lock",
            let attempt = json["attempt_id"]?.stringValue, let host = json["host"]?.stringValue,
            let pid = json["pid"]?.intValue.flatMap({ Int32(exactly: $0) }), pid > 0,
            let since = json["since"]?.stringValue, let heartbeat = json["heartbeat"]?.intValue,
            let heartbeatAt = json["heartbeat_at"]?.stringValue
        else { return nil }
        owner = RunLockOwner(
            attempt: attempt, host: host, pid: pid,
            processStart: json["process_start"]?.stringValue.flatMap { UInt64($0) },
            bootID: json["boot_id"]?.stringValue,
            processNamespace: json["process_namespace"]?.stringValue)
        self.since = since
        self.heartbeat = heartbeat
        self.heartbeatAt = heartbeatAt
        isReleased = json["released"] == .bool(true)
    }

    package init(owner: RunLockOwner, at time: String) {
        self.owner = owner
        since = time
        heartbeatAt = time
    }
}
