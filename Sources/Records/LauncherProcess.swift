import Support

/// Identifies a launcher process uniquely across hosts and reboots. The next launcher of the same run uses it
/// to determine whether this one has died and left its ranks behind.
package struct LauncherProcess: Codable, Sendable, Equatable {
    private let host: String
    private let pid: Int32
    private let processStart: UInt64?
    private let bootID: String?
    private let processNamespace: String?

    package static var current: LauncherProcess {
        let owner = RunLockOwner.current(attempt: "")
        return LauncherProcess(
            host: owner.host, pid: owner.pid, processStart: owner.processStart, bootID: owner.bootID,
            processNamespace: owner.processNamespace)
    }

    /// Whether the process has certainly ended; false if that cannot be determined, for example from another
    /// host.
    package var isDead: Bool {
        RunLockOwner(
            attempt: "", host: host, pid: pid, processStart: processStart, bootID: bootID,
            processNamespace: processNamespace
        ).state == .dead
    }
}
