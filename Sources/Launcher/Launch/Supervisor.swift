import DistTrain
import Foundation

/// Runs a training until it is done: starts its ranks, watches them, and starts them again when they end before their
/// time, from the last committed checkpoint and with the hosts that are left.
///
///     repeat
///         hosts  = those that answer and agree with each other
///         mpirun … disttrain train …             its ranks watch each other (`JobWatcher`), and keep status.json
///         read status.json, and end mpirun where the ranks have ended or are silent
///     until the policy says so
final class Supervisor {
    struct Settings {
        var maxRestarts: Int
        /// Ranks below which the job waits for lost hosts.
        var minRanks: Int?
        /// Seconds, from the launcher's start on.
        var timeLimit: Double?
        var collectiveTimeout: Double?
        var storageTimeout: Double?
        /// Seconds that ranks may take until they train or load.
        var startTimeout: Double
    }

    private let job: TrainingJob
    private let crew: Crew
    private let settings: Settings
    private let began = monotonicTime()
    private let status = StatusLine()
    private var record: LaunchRecord
    private var policy: RestartPolicy
    private var previousID: String?

    /// - Throws: where the run's folder holds something else.
    init(_ job: TrainingJob, crew: Crew, settings: Settings) throws {
        try RunFolder(job.run).checkHoldsNothingElse()
        self.job = job
        self.crew = crew
        self.settings = settings
        var record =
            LaunchRecord.read(job.run)
            ?? LaunchRecord(host: "", pid: 0, maxRestarts: 0)
        (record.host, record.pid) = (ProcessInfo.processInfo.hostName, getpid())
        (record.maxRestarts, record.isOver) = (settings.maxRestarts, false)
        self.record = record
        policy = RestartPolicy(maxRestarts: settings.maxRestarts, committedStep: job.checkpointSteps.last)
    }

    /// To be called when `SignalCounts` listens.
    ///
    /// - Returns: the exit code.
    func run() throws -> Int32 {
        var resume: String?
        while true {
            let placed = try crew.assemble(
                minRanks: settings.minRanks, marker: job.marker(), reaping: [previousID].compactMap { $0 },
                say: say)
            let attempt = try start(placed, resume)
            let (outcome, cause) = finish(attempt)
            let decision = policy.decide(outcome, checkpoints: job.checkpointSteps.count)
            switch decision {
            case .end(let code):
                // mpirun that was told to end passes on no last words.
                if code != ExitStatus.success, !attempt.logs.hasSaid(cause) { say(cause) }
                close(attempt, code: code, decision: nil)
                return code
            case .giveUp(let reason):
                close(attempt, code: outcome.exitStatus, decision: "\(cause). Not started again: \(reason)")
                return outcome.exitStatus
            case .restart(let pause, let from):
                guard SignalCounts.received == nil else {
                    // Whoever gives the same command again goes on from the checkpoint.
                    let code =
                        SignalCounts.isImpatient || job.checkpointSteps.isEmpty
                        ? outcome.exitStatus : ExitStatus.runAgain
                    close(attempt, code: code, decision: "\(cause). Not started again: told to end")
                    return code
                }
                if let left = timeLeft, left < pause + 10 {
                    close(
                        attempt, code: ExitStatus.runAgain,
                        decision: "\(cause). No time is left to start again")
                    return ExitStatus.runAgain
                }
                resume = from == .beforeNewest ? job.checkpointBeforeNewest : nil
                let place = resume.map { "from \($0), since it failed twice after the newest" } ?? job.place
                writePostMortem(attempt, cause, "started again \(place)")
                say("\(cause)")
                say(
                    "starting again in \(duration(pause)) \(place) (restart \(policy.restarts) of "
                        + "\(settings.maxRestarts) without a new checkpoint); \(attempt.folder)/postmortem.txt"
                )
                sleep(pause)
            }
        }
    }

    private var timeLeft: Double? { settings.timeLimit.map { $0 - (monotonicTime() - began) } }

    private func sleep(_ seconds: Double) {
        let end = monotonicTime() + seconds
        while monotonicTime() < end, SignalCounts.received == nil { usleep(50_000) }
    }

    private func say(_ line: String) { status.print("launch: \(line)") }

    // MARK: One start

    /// A start of the job that is under way.
    private final class Attempt {
        let index: Int
        let id: String
        let folder: String
        let child: ChildProcess
        var logs: RankLogs
        let reader: StatusReader
        /// The last look at status.json that is this start's own.
        var status: JobStatus?

        init(index: Int, id: String, folder: String, run: String, child: ChildProcess) throws {
            (self.index, self.id, self.folder, self.child) = (index, id, folder, child)
            logs = try RankLogs(folder: folder, of: child)
            reader = StatusReader(run, attempt: id)
        }
    }

    private func start(_ placed: Crew.Placed, _ resume: String?) throws -> Attempt {
        let number = (record.attempts.last?.number ?? 0) + 1
        let id = String(UInt64.random(in: 1 << 60...UInt64.max), radix: 16)
        var words = job.program
        if let timeLeft { words += ["--time-limit", String(format: "%.1f", max(1, timeLeft))] }
        if let timeout = settings.collectiveTimeout { words += ["--collective-timeout", String(timeout)] }
        if let timeout = settings.storageTimeout { words += ["--storage-timeout", String(timeout)] }
        // What the command line says of it is for the first start.
        if previousID != nil { words += ["--resume", resume ?? "auto"] }
        var marks = [LaunchRecord.attemptVariable: id]
        // The lock of a start that this launcher knows to be over need not be waited for.
        if let previousID { marks[LaunchRecord.supersededVariable] = previousID }
        let mpirun = placed.mpirun(words, marks)
        say(placed.summary)
        let child = try ChildProcess(
            [mpirun.executable] + mpirun.arguments,
            environment: ProcessInfo.processInfo.environment.merging(mpirun.environment) { _, ours in ours },
            output: .captured)
        record.attempts.append(
            LaunchRecord.Attempt(
                number: number, id: id, hosts: placed.hosts, threads: placed.threads,
                startedAt: Date().timeIntervalSince1970, firstStep: job.checkpointSteps.last))
        let folder =
            "\(job.run)/\(LaunchRecord.logs)/attempt-\(String(repeating: "0", count: max(0, 4 - "\(number)".count)))\(number)"
        do {
            let attempt = try Attempt(
                index: record.attempts.count - 1, id: id, folder: folder, run: job.run, child: child)
            record.write(job.run)
            previousID = id
            return attempt
        } catch {
            child.killGroup()
            throw error
        }
    }

    /// Watches a start to its end.
    private func finish(_ attempt: Attempt) -> (RestartPolicy.Outcome, cause: String) {
        var watch = StartWatch(
            startTimeout: settings.startTimeout,
            limits: WatchLimits(
                collectiveTimeout: settings.collectiveTimeout, storageTimeout: settings.storageTimeout),
            now: monotonicTime())
        var isTold = false
        var isForwarded = false
        var lookedAt = -Double.infinity
        var killed: String?
        var ending: ChildProcess.Ending?
        while ending == nil {
            ending = attempt.child.poll()
            attempt.logs.take(isLast: ending != nil, show: show)
            let now = monotonicTime()
            if let signal = SignalCounts.received, !isTold {
                isTold = true
                say(
                    "\(signalName(signal)): the ranks stop after their step, with a checkpoint; once more ends at once"
                )
            }
            if SignalCounts.isImpatient, killed == nil {
                killed = "stopped at once, as it was told to"
                kill(attempt)
            }
            if now - lookedAt >= 0.25 {
                lookedAt = now
                look(attempt, attempt.reader.latest)
                if killed == nil,
                    let fault = watch.fault(attempt.status, heartbeat: attempt.logs.heartbeat, now: now)
                {
                    killed = fault
                    kill(attempt)
                }
            }
            if isTold, !isForwarded, attempt.logs.heartbeat != nil {
                // mpirun passes this on and kills nothing; what it does on SIGTERM leaves ranks no time to save.
                // Before ranks have come up it would be lost, or end mpirun itself.
                attempt.child.send(SIGUSR1)
                isForwarded = true
            }
            if ending == nil { usleep(20_000) }
        }
        look(attempt, attempt.reader.finish(within: Self.lastRead))
        AttemptProcesses(attempt.id).kill()
        return outcome(of: attempt, ending, killed)
    }

    private func kill(_ attempt: Attempt) {
        // Ranks and remote daemons end when they lose mpirun; ranks on this host that are stopped do not.
        AttemptProcesses(attempt.id).kill()
        attempt.child.killGroup()
    }

    /// Seconds for the last status to be read when the job has ended.
    private static let lastRead = 5.0

    private func look(_ attempt: Attempt, _ found: JobStatus?) {
        guard let found, found.beat != attempt.status?.beat else { return }
        let isNew = found.progress?.step != attempt.status?.progress?.step
        attempt.status = found
        guard let progress = found.progress, status.isTerminal || isNew else { return }
        record.attempts[attempt.index].lastStep = progress.step
        var fields = progress.fields(of: found.steps)
        fields.append("elapsed \(duration(monotonicTime() - began))")
        if let step = found.checkpointStep { fields.append("checkpoint \(step)") }
        if let host = found.slowestHost, let ratio = found.slowestRatio, ratio > 1.25 {
            fields.append(String(format: "slowest host \(host), %.1f times the median", ratio))
        }
        status.show(fields)
    }

    private func show(_ line: String, _ isError: Bool) {
        if isError || status.isTerminal { return status.print(line) }
        Console.output.write(line + "\n")
    }

    // MARK: Its end

    private func outcome(
        of attempt: Attempt, _ ending: ChildProcess.Ending?, _ killed: String?
    ) -> (RestartPolicy.Outcome, cause: String) {
        let found = attempt.status
        var code: Int32
        var cause: String
        switch ending {
        case .killed(let signal):
            (code, cause) = (128 + signal, "mpirun was killed by signal \(signal) (\(signalName(signal)))")
        case .exited(let status):
            code = status
            let signal = status - 128
            cause =
                (1..<32).contains(signal)
                ? "a rank was ended by signal \(signal) (\(signalName(signal)))"
                    + (signal == SIGKILL ? ", as the kernel does when memory runs out" : "")
                : "the job ended with exit code \(status)"
        case nil: (code, cause) = (ExitStatus.crash, "the job is lost")
        }
        if let killed { (code, cause) = (code == ExitStatus.success ? ExitStatus.crash : code, killed) }
        // What the ranks themselves have written is surer than mpirun's code, which adds several ranks' up.
        if let found, found.state != .running, let told = found.exitStatus {
            (code, cause) = (told, found.message ?? cause)
        }
        if SignalCounts.isImpatient { code = 128 + (SignalCounts.received ?? SIGTERM) }
        record.attempts[attempt.index].endedAt = Date().timeIntervalSince1970
        record.attempts[attempt.index].exitStatus = code
        record.attempts[attempt.index].message = cause
        record.attempts[attempt.index].lastStep =
            found?.progress?.step ?? record.attempts[attempt.index].lastStep
        return (
            RestartPolicy.Outcome(
                exitStatus: code, hasTrained: found?.ranks.contains { $0.reading.stepSeconds > 0 } == true,
                committedStep: job.checkpointSteps.last), cause
        )
    }

    private func writePostMortem(_ attempt: Attempt, _ cause: String, _ decision: String) {
        record.write(job.run)
        let page = PostMortem(
            attempt: record.attempts[attempt.index], status: attempt.status, cause: cause, decision: decision,
            committedStep: job.checkpointSteps.last, lastLines: attempt.logs.lastLines)
        try? page.text.write(toFile: "\(attempt.folder)/postmortem.txt", atomically: true, encoding: .utf8)
    }

    private func close(_ attempt: Attempt, code: Int32, decision: String?) {
        status.finish()
        record.isOver = true
        record.write(job.run)
        guard let decision else { return }
        say(decision)
        writePostMortem(attempt, record.attempts[attempt.index].message ?? "", decision)
        say("see \(attempt.folder)/postmortem.txt")
    }

    private func signalName(_ signal: Int32) -> String { String(cString: strsignal(signal)) }
}
