import ArgumentParser
import Foundation
import Supervision
import Support

/// `disttrain launch-guard`, which `launch` starts.
struct LaunchGuardCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: LaunchGuard.command,
        abstract: "End a start of a job when the launcher dies, for launch.",
        shouldDisplay: false)

    @Option(help: "The start, as its processes are marked.") var attempt: String
    @Flag(help: "The ranks save a checkpoint on SIGUSR1.") var saves = false

    func run() throws {
        // Signals to the launcher's process group or terminal are for the job.
        for number in [SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGPIPE] { signal(number, SIG_IGN) }
        while let line = readLine() { if line == LaunchGuard.farewell { return } }
        let processes = AttemptProcesses(attempt)
        guard !processes.find().isEmpty else { return }
        Console.error.write(
            "launch: the launcher has died; the ranks end"
                + (saves
                    ? ", with a checkpoint where that takes less than \(duration(LaunchGuard.patience))\n"
                    : "\n"))
        if saves {
            var deadline = monotonicTime() + LaunchGuard.patience
            var hadRanks = false
            // A rank passes the request on to the others at its next step. What has no handler yet would be killed by the
            // signal, without the others noticing.
            var asked: Set<pid_t> = []
            while monotonicTime() < deadline {
                let left = processes.find()
                if left.isEmpty { return }
                for process in left where !asked.contains(process) && catches(process, SIGUSR1) {
                    kill(process, SIGUSR1)
                    asked.insert(process)
                }
                // All ranks end together, and mpirun may linger, since nobody reads its output.
                if left.contains(where: isRank) {
                    hadRanks = true
                } else if hadRanks {
                    deadline = min(deadline, monotonicTime() + Self.lingering)
                    hadRanks = false
                }
                usleep(200_000)
            }
        }
        processes.kill()
    }

    /// Seconds for the other ranks and mpirun to end once this host's ranks have.
    private static let lingering = 3.0

    /// By the environment that mpirun gives to ranks alone.
    private func isRank(_ process: pid_t) -> Bool {
        FileManager.default.contents(atPath: "/proc/\(process)/environ")?.split(separator: 0)
            .contains { $0.starts(with: Data("OMPI_COMM_WORLD_RANK=".utf8)) } == true
    }

    /// Whether a process has a handler for a signal.
    private func catches(_ process: pid_t, _ signal: Int32) -> Bool {
        let line = KernelFiles(root: "/").lines("proc/\(process)/status").first { $0.hasPrefix("SigCgt:") }
        guard let mask = line?.split(whereSeparator: \.isWhitespace).last.flatMap({ UInt64($0, radix: 16) })
        else { return false }
        return mask & (1 << UInt64(signal - 1)) != 0
    }
}
