import ArgumentParser
import Communication
import Foundation
import Supervision
import Support

/// `disttrain launch`: places ranks, runs them under mpirun, and restarts a training job after failures.
struct LaunchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "launch",
        abstract:
            "Run a subcommand on several ranks, here or on other hosts, and restart failed training runs.",
        discussion: """
            Chooses ranks, threads and binding for the processors that are available: physical cores, the affinity \
            mask, and the CPU limit of a container. The exit code is that of the job.

              disttrain launch -n 2 -- train --config configs/tiny.yaml
              disttrain launch --hostfile hosts -- train --config configs/celeba_hq_256.yaml
              disttrain launch --slurm --requeue -- train --config configs/celeba_hq_256.yaml

            A training run that crashes or hangs is restarted from its last checkpoint, on the hosts that respond and \
            are able to run it; a host that fails repeatedly is excluded for a while. The run is also restarted after \
            exit code 74 (disk or file system failure), and once after 4 (numerical fault). It is not restarted after 2 \
            (usage), 3 (data refused) or a second numerical fault at the same step, because these would recur.

            Ctrl-C, SIGTERM or SIGUSR1 stops the run after the current step, with a checkpoint and exit code 75; a second \
            Ctrl-C ends it immediately. The run's folder contains logs/ (one file per rank, and a post-mortem of each \
            failure). `disttrain status RUN` shows the run's state on any machine with access to that folder.

            Hosts need this program and Open MPI under the same paths, passwordless ssh, and the run's folder and data \
            on a shared file system; `disttrain doctor --hostfile hosts` checks these requirements.
            """)

    @Option(
        name: .customShort("n"), help: "Total number of ranks. Default: as many as the cores allow.")
    var ranks: Int?

    @Option(
        name: .long, help: "Threads per rank. Default: OMP_NUM_THREADS, or the cores divided by the ranks.")
    var threads: Int?

    @OptionGroup(title: "Hosts") var hosts: HostOptions

    @Option(
        help: ArgumentHelp(
            "Maximum number of restarts without a new checkpoint in between.", valueName: "count"))
    var maxRestarts = 3

    @Option(
        help: ArgumentHelp(
            """
            Minimum number of ranks with which the job continues after losing hosts. Default: half of the ranks; the \
            first attempt requires all.
            """, valueName: "count"))
    var minRanks: Int?

    @Option(
        help: ArgumentHelp(
            """
            Time limit, such as 3h50m: the run stops before it expires, with a checkpoint and exit code 75. Default: the \
            time limit of the Slurm job, if any.
            """, valueName: "time"))
    var timeLimit: String?

    @Option(
        help: ArgumentHelp(
            "Timeout for a rank that makes no progress; see `disttrain train --help`.", valueName: "time"))
    var collectiveTimeout: String?

    @Option(
        help: ArgumentHelp(
            "Timeout for storage that makes no progress; see `disttrain train --help`.", valueName: "time"))
    var storageTimeout: String?

    @Option(help: ArgumentHelp("Timeout for the ranks to start.", valueName: "time"))
    var startTimeout = "5m"

    @Flag(
        help: """
            With --slurm: when the time limit is reached, save a checkpoint, requeue the job and wait for Slurm to end \
            it. A job without a new checkpoint is not requeued.
            """)
    var requeue = false

    @Flag(name: .long, help: "Print the mpirun command without running it.")
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
                "no subcommand given: put it after `--`, as in "
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
                "launch starts mpirun itself, but this process is already a rank of an MPI job; "
                    + "run `disttrain \(program[0])` instead")
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
                say("not requeued: this job has made no new checkpoint")
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
                let hint = signal == SIGKILL ? ", which the kernel sends when memory runs out" : ""
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
