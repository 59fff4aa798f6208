import Foundation

/// A current or former holder of a run's folder, with enough data to identify one process among all hosts.
package struct RunLockOwner: Sendable, Equatable {
    /// The ID of this launch.
    package var attempt: String
    package var host: String
    package var pid: Int32
    /// Start time of the process in clock ticks since boot; distinguishes processes that reuse the same ID.
    package var processStart: UInt64?
    /// The kernel's boot ID; changes with each boot.
    package var bootID: String?
    /// The PID namespace: process IDs are valid only within one, and containers share a kernel and its boot
    /// ID.
    package var processNamespace: String?

    package init(
        attempt: String, host: String, pid: Int32, processStart: UInt64? = nil, bootID: String? = nil,
        processNamespace: String? = nil
    ) {
        (self.attempt, self.host, self.pid, self.processStart) = (attempt, host, pid, processStart)
        (self.bootID, self.processNamespace) = (bootID, processNamespace)
    }

    /// The state of an owner as seen by this process.
    package enum State: Equatable {
        case alive, dead
        /// Not visible from here: on another host or in another container.
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
        // A truncated name is still terminated by the last byte.
        gethostname(&name, 255)
        return String(terminated: name)
    }

    private static var thisBootID: String? {
        (try? String(contentsOfFile: "/proc/sys/kernel/random/boot_id", encoding: .utf8))?
            .trimmingCharacters(in: .whitespacesAndNewlines)
    }

    private static var thisNamespace: String? {
        try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/ns/pid")
    }

    /// Whether the owner's process is alive; `.unknown` if it is not visible to this process.
    package var state: State {
        guard let bootID, let processNamespace, host == Self.thisHost,
            bootID == Self.thisBootID, processNamespace == Self.thisNamespace
        else { return .unknown }
        if kill(pid, 0) != 0, errno == ESRCH { return .dead }
        // /proc may hide processes of other users. The process exists if kill succeeds or fails with anything
        // but ESRCH.
        guard let entry = ProcessEntry(of: pid) else { return .alive }
        if entry.isEnded { return .dead }
        if let processStart, entry.start != processStart { return .dead }
        return .alive
    }

    /// The state of a process on this host, from /proc/PID/stat.
    private struct ProcessEntry {
        /// Start time in clock ticks since boot.
        let start: UInt64
        /// Whether the process is a zombie or dead.
        let isEnded: Bool

        /// nil if the process does not exist or is hidden.
        init?(of pid: Int32) {
            guard let text = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8),
                let name = text.lastIndex(of: ")")
            else { return nil }
            // Parse after the command name, which may contain any character: state is field 3 and starttime
            // field 22 of proc(5).
            let fields = text[text.index(after: name)...].split(separator: " ")
            guard fields.count > 19, let start = UInt64(fields[19]) else { return nil }
            self.start = start
            isEnded = fields[0] == "Z" || fields[0] == "X"
        }
    }
}

/// The content of a lock file.
struct RunLockRecord: Sendable, Equatable {
    var owner: RunLockOwner
    /// When the lock was taken and its last heartbeat, by the owner's clock. For display only; never
    /// compared.
    var since: String
    var heartbeatAt: String
    /// Increases with each heartbeat.
    var heartbeat = 0
    /// Whether the owner has released the lock.
    var isReleased = false

    /// Example: "process 12 on node7 since 2030-01-02T03:04:05Z, last heartbeat 2030-01-02T03:05:05Z".
    var summary: String {
        "process \(owner.pid) on \(owner.host) since \(since), last heartbeat \(heartbeatAt)"
    }

    /// Fixed size of an encoded record in bytes: the record is rewritten in place and its length must not
    /// change.
    private static let length = 1024

    func encoded() -> [UInt8] {
        let json: JSONValue = [
            "kind": "disttrain lock", "attempt_id": .string(owner.attempt), "host": .string(owner.host),
            "pid": .integer(Int(owner.pid)),
            // As text, because JSON integers are limited to 63 bits here.
            "process_start": owner.processStart.map { .string(String($0)) } ?? .null,
            "boot_id": owner.bootID.map { .string($0) } ?? .null,
            "process_namespace": owner.processNamespace.map { .string($0) } ?? .null,
            "since": .string(since), "heartbeat": .integer(heartbeat), "heartbeat_at": .string(heartbeatAt),
            "released": .bool(isReleased),
        ]
        // Encoding cannot fail, because there are no floating-point numbers.
        let text = Array(((try? json.text()) ?? "").utf8)
        return text + [UInt8](repeating: UInt8(ascii: " "), count: max(0, Self.length - 1 - text.count))
            + [UInt8(ascii: "\n")]
    }

    /// nil if the bytes are not a complete record: a lock file that was never finished, or was not written by
    /// this program.
    init?(_ bytes: [UInt8]) {
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
        (self.since, self.heartbeat, self.heartbeatAt) = (since, heartbeat, heartbeatAt)
        isReleased = json["released"] == .bool(true)
    }

    init(owner: RunLockOwner, at time: String) {
        self.owner = owner
        since = time
        heartbeatAt = time
    }
}
