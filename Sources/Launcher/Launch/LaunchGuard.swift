import ArgumentParser
import DistTrain
import Foundation

/// A process beside each start of a job that ends the job when its launcher has died, even by SIGKILL.
///
/// Its standard input is a pipe whose only writer is the launcher, so that the kernel reports the launcher's death. A
/// launcher that ends in order writes a line first. mpirun itself would go on without its launcher, and the ranks with
/// it, with nobody to read what they print or to restart them.
struct LaunchGuard {
    private let child: ChildProcess

    /// Seconds that ranks have for a checkpoint before they are killed. Together with what remote ranks need to notice the
    /// end of mpirun (4 s), it must stay well below 30 s.
    static let patience = 20.0

    /// To be started before the job, so that there is no moment without it.
    ///
    /// - Parameters:
    ///   - attempt: marks the processes of the start on this host, in their environment.
    ///   - saves: whether the ranks save a checkpoint on SIGUSR1.
    init(program: String, attempt: String, saves: Bool) throws {
        var environment = ProcessInfo.processInfo.environment
        // It must not take itself for a process of the job.
        environment[LaunchRecord.attemptVariable] = nil
        child = try ChildProcess(
            [program, LaunchGuardCommand.name, "--attempt", attempt] + (saves ? ["--saves"] : []),
            environment: environment, output: .inherited, hasInput: true, ownSession: true)
    }

    /// The job is over.
    func dismiss() {
        child.send(line: LaunchGuardCommand.farewell)
        child.closeInput()
        child.end(within: 1)
    }
}

/// `disttrain launch-guard`, which `launch` starts.
struct LaunchGuardCommand: ParsableCommand {
    static let name = "launch-guard"
    static let farewell = "done"
    static let configuration = CommandConfiguration(
        commandName: name, abstract: "End a start of a job when the launcher dies, for launch.",
        shouldDisplay: false)

    @Option(help: "The start, as its processes are marked.") var attempt: String
    @Flag(help: "The ranks save a checkpoint on SIGUSR1.") var saves = false

    func run() throws {
        // Signals to the launcher's process group or terminal are for the job.
        for number in [SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGPIPE] { signal(number, SIG_IGN) }
        while let line = readLine() { if line == LaunchGuardCommand.farewell { return } }
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
