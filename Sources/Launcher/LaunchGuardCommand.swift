import ArgumentParser
import Foundation
import Supervision
import Support

/// `disttrain launch-guard`: a helper process that `launch` starts.
struct LaunchGuardCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: LaunchGuard.command,
        abstract: "End the ranks if their launcher dies, for launch.",
        shouldDisplay: false)

    @Option(help: "ID of the attempt, which marks its processes.") var attempt: String
    @Flag(help: "Ranks save a checkpoint on SIGUSR1.") var saves = false

    func run() throws {
        // Signals to the launcher's process group or terminal are meant for the job.
        for number in [SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGPIPE] { signal(number, SIG_IGN) }
        while let line = readLine() { if line == LaunchGuard.farewell { return } }
        let processes = AttemptProcesses(attempt)
        guard !processes.find().isEmpty else { return }
        Console.error.write(
            "launch: the launcher has died; stopping the ranks"
                + (saves
                    ? ", with a checkpoint if it takes less than \(duration(LaunchGuard.patience))\n"
                    : "\n"))
        if saves {
            var deadline = monotonicTime() + LaunchGuard.patience
            var hadRanks = false
            // A rank forwards the request to the other ranks at its next step. A process without a handler
            // would be killed by the signal, without the other ranks noticing.
            var asked: Set<pid_t> = []
            while monotonicTime() < deadline {
                let left = processes.find()
                if left.isEmpty { return }
                for process in left where !asked.contains(process) && catches(process, SIGUSR1) {
                    kill(process, SIGUSR1)
                    asked.insert(process)
                }
                // All ranks end together. mpirun may remain, because no process reads its output.
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

    /// Seconds for the other ranks and mpirun to exit after the ranks on this host have ended.
    private static let lingering = 3.0

    /// Ranks are identified by an environment variable that mpirun sets only for them.
    private func isRank(_ process: pid_t) -> Bool {
        FileManager.default.contents(atPath: "/proc/\(process)/environ")?.split(separator: 0)
            .contains { $0.starts(with: Data("OMPI_COMM_WORLD_RANK=".utf8)) } == true
    }

    /// Whether a process has a handler for the signal.
    private func catches(_ process: pid_t, _ signal: Int32) -> Bool {
        let line = KernelFiles(root: "/").lines("proc/\(process)/status").first { $0.hasPrefix("SigCgt:") }
        guard let mask = line?.split(whereSeparator: \.isWhitespace).last.flatMap({ UInt64($0, radix: 16) })
        else { return false }
        return mask & (1 << UInt64(signal - 1)) != 0
    }
}
