import ArgumentParser
import Communication
import Foundation
import Supervision
import Support

/// `disttrain launch`: places ranks, runs them under mpirun, and restarts a training job after failures.
struct LaunchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "launch",
        abstract: "Run a subcommand on several ranks, here or on other hosts, and keep training going.",
        discussion: """
            Chooses ranks, threads and binding for the processors that are really there: physical cores, \
            the affinity mask, and a container's CPU limit. The exit code is the job's.

              disttrain launch -n 2 -- train --config configs/tiny.yaml
              disttrain launch --hostfile hosts -- train --config configs/celeba_hq_256.yaml
              disttrain launch --slurm --requeue -- train --config configs/celeba_hq_256.yaml

            A training that dies or hangs is restarted from its last checkpoint, on the hosts that still answer and are \
            in a state to run it; a host that keeps failing is left out for a while. It is also restarted after exit \
            code 74 (a disk or file system failed), and once after 4 (numerical fault). It is not restarted after 2 \
            (usage), 3 (data refused) and a second numerical fault at the same step, since these would happen again.

            Ctrl-C, SIGTERM or SIGUSR1 stop it after a step, with a checkpoint and exit code 75; a second Ctrl-C ends \
            it at once. The run's folder holds logs/ (one file a rank, a post-mortem of each failure) and what \
            `disttrain status RUN` shows from any machine.

            Hosts need this program and Open MPI under the same paths, ssh without a password, and the run's folder \
            and data on a shared file system; `disttrain doctor --hostfile hosts` checks all that.
            """)

    @Option(
        name: .customShort("n"), help: "Ranks of the whole job. Default: as many as the cores give room for.")
    var ranks: Int?

    @Option(name: .long, help: "Threads of each rank. Default: OMP_NUM_THREADS, or the cores shared out.")
    var threads: Int?

    @OptionGroup(title: "Hosts") var hosts: HostOptions

    @Option(
        help: ArgumentHelp(
            "Restarts of a training without a new checkpoint in between.", valueName: "count"))
    var maxRestarts = 3

    @Option(
        help: ArgumentHelp(
            """
            Minimum of ranks with which the job continues when hosts are lost. Default: half of them; on the first start all must \
            be there.
            """, valueName: "count"))
    var minRanks: Int?

    @Option(
        help: ArgumentHelp(
            """
            Stop in time, with a checkpoint and exit code 75, for a job that may last so long: 3h50m. Default: until \
            Slurm ends the job, where it runs in one.
            """, valueName: "time"))
    var timeLimit: String?

    @Option(
        help: ArgumentHelp(
            "See `disttrain train --help`: how long a rank may stand still.", valueName: "time"))
    var collectiveTimeout: String?

    @Option(
        help: ArgumentHelp(
            "See `disttrain train --help`: how long a disk may show no progress.", valueName: "time"))
    var storageTimeout: String?

    @Option(help: ArgumentHelp("How long ranks may take to come up.", valueName: "time"))
    var startTimeout = "5m"

    @Flag(
        help: """
            In Slurm: when time is up, save, put the job back into the queue and wait to be ended. Not where the job has \
            made no new checkpoint.
            """)
    var requeue = false

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
        if maxRestarts < 0 { throw ValidationError("--max-restarts \(maxRestarts): expected 0 or more") }
        if let minRanks, minRanks < 1 {
            throw ValidationError("--min-ranks \(minRanks): expected at least 1 rank")
        }
        _ = try seconds(timeLimit, "--time-limit")
        _ = try seconds(collectiveTimeout, "--collective-timeout")
        _ = try seconds(storageTimeout, "--storage-timeout")
        _ = try seconds(startTimeout, "--start-timeout")
        if program.isEmpty {
            throw ValidationError(
                "no subcommand to run: put it after `--`, as in "
                    + "`disttrain launch -n 2 -- train --config FILE`")
        }
    }

    func run() throws {
        // mpirun inherits the limit; it opens several files for each rank.
        OpenFileLimit.raise()
        // Validate the ranks' command line here, so that errors are printed once.
        let command = try DistTrainCommand.parseAsRoot(program)
        let environment = ProcessInfo.processInfo.environment
        if try LaunchEnvironment(environment) != .alone {
            throw LaunchError(
                "launch starts mpirun itself, and runs already as a rank of one; "
                    + "run `disttrain \(program[0])` in its place")
        }
        let training = dryRun ? nil : command as? any TrainingCommand
        // Install the handlers first: Slurm may send a signal as soon as the job starts, which would end a
        // process without a handler.
        if training != nil { SignalCounts.listen() }
        let inheritedThreads = environment["OMP_NUM_THREADS"].flatMap { Int($0) }.flatMap {
            $0 > 0 ? $0 : nil
        }
        let allocation = try hosts.allocation(environment)
        let crew = Crew(
            place: try hosts.place(allocation), ranks: ranks,
            threads: threads ?? allocation?.threads ?? inheritedThreads, networks: hosts.networks,
            mpirun: try MPIRun.find(path: environment["PATH"]), program: try ownExecutable(),
            environment: environment)
        for warning in KernelLimits.warnings(environment: environment) { say("warning: \(warning)") }
        if let training {
            let status = try supervise(training, crew, allocation)
            if status != ExitStatus.success { throw ExitCode(status) }
            return
        }
        let placed = try crew.assemble(Crew.Conditions(minRanks: minRanks), say: say)
        say(placed.summary)
        if let warning = placed.fileLimitWarning { say(warning) }
        let mpirun = placed.mpirun([crew.program] + program, [:])
        if dryRun {
            print(mpirun.commandLine)
            return
        }
        let id = String(UInt64.random(in: 1 << 60...UInt64.max), radix: 16)
        let launchGuard = try LaunchGuard(program: crew.program, attempt: id, saves: false)
        defer { launchGuard.dismiss() }
        let (ending, forwarded) = try ChildProcess.run(
            [mpirun.executable] + mpirun.arguments,
            environment: environment.merging(mpirun.environment) { _, ours in ours }
                .merging([LaunchAttempt.variable: id]) { _, ours in ours })
        let status = exitStatus(ending, forwarded: forwarded)
        if status != ExitStatus.success { throw ExitCode(status) }
    }

    private func supervise(
        _ training: any TrainingCommand, _ crew: Crew, _ allocation: SlurmAllocation?
    ) throws -> Int32 {
        let job = TrainingJob(
            program: [crew.program] + program, run: try training.runFolder(), resume: training.options.resume)
        let before = job.checkpointSteps.last
        let supervisor = try Supervisor(
            job, crew: crew,
            settings: Supervisor.Settings(
                maxRestarts: maxRestarts, minRanks: minRanks,
                timeLimit: try seconds(timeLimit, "--time-limit") ?? allocation?.timeLeft(),
                collectiveTimeout: try seconds(collectiveTimeout, "--collective-timeout"),
                storageTimeout: try seconds(storageTimeout, "--storage-timeout"),
                startTimeout: try seconds(startTimeout, "--start-timeout") ?? 300))
        let status = try supervisor.run()
        if requeue, status == ExitStatus.runAgain, let allocation {
            guard job.checkpointSteps.last != before else {
                say("not put back into the queue: no new checkpoint was made in this job's time")
                return status
            }
            try allocation.requeue(say: say)
        }
        return status
    }

    /// Returns the job's exit code, after printing a message about failures that the ranks could not report
    /// themselves.
    private func exitStatus(_ ending: ChildProcess.Ending, forwarded: Int32?) -> Int32 {
        switch ending {
        case .killed(let signal):
            say("mpirun was killed by signal \(signal) (\(name(of: signal)))")
            return 128 + signal
        case .exited(let status):
            switch status {
            case ExitStatus.success, ExitStatus.usage, ExitStatus.refused, ExitStatus.numericalFault,
                ExitStatus.storageFault, ExitStatus.runAgain:
                break  // The ranks have reported the reason.
            case 129...159:
                // Like a shell, mpirun reports a rank that was killed by a signal as 128 + signal.
                let signal = status - 128
                let hint = signal == SIGKILL ? ", as the kernel does when memory runs out" : ""
                say("ended by signal \(signal) (\(name(of: signal)))\(hint); all ranks have been stopped")
            case 1 where forwarded != nil:
                // mpirun exits with 1 after a forwarded signal.
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
