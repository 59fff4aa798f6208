import Foundation

/// A job that leads a session of its own. mpirun puts every rank into another process group, but none leaves the session;
/// so all of its processes are known, also those whose parents are gone.
struct JobSession {
    /// The first process, by whose number the session goes.
    package let leader: ChildProcess

    /// Seconds that the kernel may take to end what has been killed.
    private static let patience = 10.0

    /// Kills every process of the job at once, and returns when none is left.
    ///
    /// - Throws: `LaunchError` with those that do not go, as one that waits for a dead disk.
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

    /// By /proc/PID/stat: after the name, which may hold anything, state is field 3 and session field 6 of proc(5).
    private func isMember(_ process: pid_t) -> Bool {
        guard let text = try? String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8),
            let name = text.lastIndex(of: ")")
        else { return false }
        let fields = text[text.index(after: name)...].split(separator: " ")
        guard fields.count > 3, fields[0] != "Z", fields[0] != "X" else { return false }
        return pid_t(fields[3]) == leader.pid
    }
}
