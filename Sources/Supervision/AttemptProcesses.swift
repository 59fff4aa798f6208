import Foundation
import Support

/// The processes on this host that belong to one attempt (one start of a job), identified by an environment
/// variable.
package struct AttemptProcesses {
    package let attempt: String

    package init(_ attempt: String) { self.attempt = attempt }

    package func find() -> [pid_t] {
        let own = getpid()
        let wanted = Data("\(LaunchAttempt.variable)=\(attempt)".utf8)
        return ((try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []).compactMap { name in
            guard let process = pid_t(name), process != own,
                let environment = FileManager.default.contents(atPath: "/proc/\(name)/environ"),
                environment.split(separator: 0).contains(where: { $0 == wanted })
            else { return nil }
            return process
        }
    }

    /// Kills the processes and removes their shared memory segments.
    package func kill() {
        guard !attempt.isEmpty else { return }
        for _ in 0..<20 {
            let processes = find()
            if processes.isEmpty { return }
            let segments = Set(processes.flatMap(sharedMemory))
            for process in processes { Foundation.kill(process, SIGKILL) }
            for segment in segments { unlink(segment) }
            usleep(50_000)
        }
    }

    /// The Open MPI segments in /dev/shm that a process has mapped.
    private func sharedMemory(of process: pid_t) -> [String] {
        KernelFiles(root: "/").lines("proc/\(process)/maps").compactMap { line in
            guard let start = line.range(of: "/dev/shm/vader_segment") else { return nil }
            return String(line[start.lowerBound...])
        }
    }
}
