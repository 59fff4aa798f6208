import Foundation
import Support

/// A helper process, one per attempt, that ends the job when its launcher has died, even by SIGKILL.
///
/// Its standard input is a pipe whose only writer is the launcher, so it reads end-of-file when the launcher
/// dies. A launcher that exits normally writes a line first. Without this process, mpirun and the ranks would
/// continue without a launcher that reads their output or restarts them.
package struct LaunchGuard {
    private let child: ChildProcess

    /// The subcommand that the process runs, and the line that a launcher writes when it exits normally.
    package static let command = "launch-guard"
    package static let farewell = "done"

    /// Seconds that ranks have for a checkpoint before they are killed. Together with the time that remote
    /// ranks need to detect the end of mpirun (4 s), it must stay well below 30 s.
    package static let patience = 20.0

    /// Starts the helper process. Call this before starting the job, so that the job never runs without it.
    ///
    /// - Parameters:
    ///   - attempt: the value of the environment variable that marks the attempt's processes on this host.
    ///   - saves: whether the ranks save a checkpoint on SIGUSR1.
    package init(program: String, attempt: String, saves: Bool) throws {
        var environment = ProcessInfo.processInfo.environment
        // Without this, the helper would count itself as a process of the job.
        environment[LaunchAttempt.variable] = nil
        child = try ChildProcess(
            [program, Self.command, "--attempt", attempt] + (saves ? ["--saves"] : []),
            environment: environment, output: .inherited, hasInput: true, ownSession: true)
    }

    /// Ends the helper process after the job is over.
    package func dismiss() {
        child.send(line: Self.farewell)
        child.closeInput()
        child.end(within: 1)
    }
}

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
