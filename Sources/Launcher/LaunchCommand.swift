import ArgumentParser
import DistTrain
import Foundation

/// `disttrain launch`: places ranks on this machine, runs them under mpirun, and ends as they end.
struct LaunchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "launch",
        abstract: "Run a subcommand on several ranks of this machine.",
        discussion: """
            Chooses ranks, threads and binding for the processors that are really there: physical cores, \
            the affinity mask, and a container's CPU limit. The exit code is the job's.

              disttrain launch -n 2 -- train --config configs/tiny.yaml
            """)

    @Option(name: .customShort("n"), help: "Ranks. Default: as many as the cores give room for.")
    var ranks: Int?

    @Option(name: .long, help: "Threads of each rank. Default: OMP_NUM_THREADS, or the cores shared out.")
    var threads: Int?

    @Flag(name: .long, help: "Print the mpirun command and do not run it.")
    var dryRun = false

    @Argument(
        parsing: .postTerminator,
        help: ArgumentHelp("The subcommand to run, after `--`, with its options.", valueName: "subcommand"))
    var program: [String] = []

    func validate() throws {
        if let ranks, ranks < 1 { throw ValidationError("-n \(ranks): expected at least 1 rank") }
        if let threads, threads < 1 {
            throw ValidationError("--threads \(threads): expected at least 1 thread")
        }
        if program.isEmpty {
            throw ValidationError(
                "no subcommand to run: put it after `--`, as in "
                    + "`disttrain launch -n 2 -- train --config FILE`")
        }
    }

    func run() throws {
        // What the ranks would refuse is refused here, once.
        _ = try DistTrainCommand.parseAsRoot(program)
        let environment = ProcessInfo.processInfo.environment
        if try LaunchEnvironment(environment) != .alone {
            throw LaunchError(
                "launch starts mpirun itself, and runs already as a rank of one; "
                    + "run `disttrain \(program[0])` in its place")
        }
        let inheritedThreads = environment["OMP_NUM_THREADS"].flatMap { Int($0) }.flatMap {
            $0 > 0 ? $0 : nil
        }
        let placement = Placement(machine: Machine(), ranks: ranks, threads: threads ?? inheritedThreads)
        let mpirun = MPIRun(
            executable: try MPIRun.find(path: environment["PATH"]),
            placement: placement,
            program: [try LaunchProcess.ownExecutable()] + program,
            singleCopy: sharedMemorySingleCopyWorks(),
            isRoot: geteuid() == 0,
            inherited: environment)
        for warning in KernelLimits.warnings(environment: environment) { say("warning: \(warning)") }
        say(placement.summary)
        if dryRun {
            print(mpirun.commandLine)
            return
        }
        let (ending, forwarded) = try LaunchProcess.run(
            executable: mpirun.executable, arguments: mpirun.arguments,
            environment: environment.merging(mpirun.environment) { _, ours in ours })
        let status = exitStatus(ending, forwarded: forwarded)
        if status != ExitStatus.success { throw ExitCode(status) }
    }

    /// The job's exit code, after a word on an end that the ranks could not report themselves.
    private func exitStatus(_ ending: LaunchProcess.Ending, forwarded: Int32?) -> Int32 {
        switch ending {
        case .killed(let signal):
            say("mpirun was killed by signal \(signal) (\(name(of: signal)))")
            return 128 + signal
        case .exited(let status):
            switch status {
            case ExitStatus.success, ExitStatus.usage, ExitStatus.refused, ExitStatus.numericalFault,
                ExitStatus.runAgain:
                break  // The ranks have said why.
            case 129...159:
                // mpirun passes on a rank's death by signal as a shell does.
                let signal = status - 128
                let hint = signal == SIGKILL ? ", as the kernel does when memory runs out" : ""
                say("ended by signal \(signal) (\(name(of: signal)))\(hint); all ranks have been stopped")
            case 1 where forwarded != nil:
                // All that mpirun says after it was told to stop.
                let signal = forwarded ?? 0
                say("stopped by signal \(signal) (\(name(of: signal)))")
                return 128 + signal
            default:
                say("the job ended with exit code \(status)")
            }
            return status
        }
    }

    private func name(of signal: Int32) -> String {
        String(cString: strsignal(signal))
    }

    private func say(_ line: String) {
        Console.error.write("launch: \(line)\n")
    }
}
