import Foundation

/// A job that is the leader of its own session. mpirun moves every rank into a different process group, but
/// no rank leaves the session, so all processes of the job can be found, including orphans.
struct JobSession {
    /// The first process, whose process ID is the session ID.
    package let leader: ChildProcess

    /// Seconds that the kernel may take to end killed processes.
    private static let patience = 10.0

    /// Kills all processes of the job at once and returns when none is left.
    ///
    /// - Throws: `LaunchError` with the processes that do not end, for example because they wait for an
    ///   unresponsive disk.
    package func killAll() throws {
        let deadline = Date(timeIntervalSinceNow: Self.patience)
        while true {
            let left = processes()
            if left.isEmpty { return }
            for process in left { kill(process, SIGKILL) }
            guard Date() < deadline else {
                throw LaunchError(
                    "killed processes \(left.map(String.init).joined(separator: ", ")), which do not end",
                    exitStatus: 1)
            }
            usleep(1000)
        }
    }

    /// The processes of the session that have not ended.
    package func processes() -> [pid_t] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
        return names.compactMap { pid_t($0) }.filter(isMember)
    }

    /// Parses /proc/PID/stat. After the process name, which may contain any character, the state is field 3
    /// and the session is field 6 of proc(5).
    private func isMember(_ process: pid_t) -> Bool {
        guard let text = try? String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8),
            let name = text.lastIndex(of: ")")
        else { return false }
        let fields = text[text.index(after: name)...].split(separator: " ")
        guard fields.count > 3, fields[0] != "Z", fields[0] != "X" else { return false }
        return pid_t(fields[3]) == leader.pid
    }
}
