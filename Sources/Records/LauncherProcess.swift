import Support

/// The process of a launcher, distinguished from every other process of every host. The next launcher of the same run
/// finds out by it whether this one has died and left its ranks behind.
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

    /// Whether it is certain that the process has ended; false where it cannot be seen from here, as on another host.
    package var isDead: Bool {
        RunLockOwner(
            attempt: "", host: host, pid: pid, processStart: processStart, bootID: bootID,
            processNamespace: processNamespace
        ).state == .dead
    }
}
