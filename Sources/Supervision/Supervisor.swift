import Checkpointing
import Foundation
import Records
import Support

/// Runs a training job until it is done: starts its ranks, watches them, and restarts them after a failure,
/// from the last committed checkpoint and on the remaining hosts.
///
///     repeat
///         hosts  = those that respond and are compatible with each other
///         mpirun … disttrain train …        the ranks watch each other (`JobWatcher`) and write status.json
///         read status.json, and end mpirun when the ranks have ended or their heartbeat has timed out
///     until the policy ends the job
///
/// A helper process ends the ranks if the supervisor itself is killed (`LaunchGuard`).
package final class Supervisor {
    package struct Settings {
        package var maxRestarts: Int
        /// If fewer ranks than this can be placed, the job waits for lost hosts.
        package var minRanks: Int?
        /// Seconds since the launcher's start.
        package var timeLimit: Double?
        package var collectiveTimeout: Double?
        package var storageTimeout: Double?
        /// Seconds until ranks must have started training or loading.
        package var startTimeout: Double

        package init(
            maxRestarts: Int, minRanks: Int? = nil, timeLimit: Double? = nil,
            collectiveTimeout: Double? = nil, storageTimeout: Double? = nil, startTimeout: Double
        ) {
            (self.maxRestarts, self.minRanks, self.timeLimit) = (maxRestarts, minRanks, timeLimit)
            (self.collectiveTimeout, self.storageTimeout) = (collectiveTimeout, storageTimeout)
            self.startTimeout = startTimeout
        }
    }

    private let job: TrainingJob
    private let crew: Crew
    private let settings: Settings
    private let began = monotonicTime()
    private let status = StatusLine()
    private var record: LaunchRecord
    private var policy: RestartPolicy
    private var health = HostHealth()
    private var previousID: String?
    /// Whether this launcher has started the job before.
    private var isRestart = false
    /// Whether the previous attempt was left behind by a launcher that was killed.
    private var isAbandoned = false
    /// The hosts of the previous attempt.
    private var lastHosts: Set<String> = []

    /// - Throws: if the run's folder contains anything that is not part of a run.
    package init(_ job: TrainingJob, crew: Crew, settings: Settings) throws {
        try RunFolder(job.run).checkHoldsNothingElse()
        (self.job, self.crew, self.settings) = (job, crew, settings)
        var record =
            LaunchRecord.read(job.run)
            ?? LaunchRecord(host: "", pid: 0, maxRestarts: 0)
        if !record.isOver, record.launcher?.isDead == true, let last = record.attempts.last,
            last.endedAt == nil
        {
            (previousID, isAbandoned) = (last.id, true)
        }
        (record.host, record.pid) = (ProcessInfo.processInfo.hostName, getpid())
        record.launcher = LauncherProcess.current
        (record.maxRestarts, record.isOver) = (settings.maxRestarts, false)
        self.record = record
        policy = RestartPolicy(maxRestarts: settings.maxRestarts, committedStep: job.checkpointSteps.last)
    }

    /// Call this after `SignalCounts.listen()`.
    ///
    /// - Returns: the exit code.
    package func run() throws -> Int32 {
        if isAbandoned { waitForAbandoned() }
        var from = RestartPolicy.Start.newest
        while true {
            let placed = try crew.assemble(
                Crew.Conditions(
                    minRanks: settings.minRanks, isFirst: !isRestart, marker: job.marker(),
                    reaping: [previousID].compactMap { $0 }, health: health),
                say: say)
            noteReturned(placed)
            let attempt = try start(placed, from)
            let (outcome, cause) = finish(attempt)
            let decision = policy.decide(outcome, checkpoints: job.checkpointSteps.count)
            switch decision {
            case .end(let code):
                // An mpirun that was terminated does not forward the last lines of the ranks.
                if code != ExitStatus.success, !attempt.logs.hasSaid(cause) { say(cause) }
                close(attempt, code: code, decision: nil)
                return code
            case .giveUp(let reason):
                close(attempt, code: outcome.exitStatus, decision: "\(cause). Not restarted: \(reason)")
                return outcome.exitStatus
            case .restart(let pause, let next):
                guard SignalCounts.received == nil else {
                    // Repeating the command resumes from the checkpoint.
                    let code =
                        SignalCounts.isImpatient || job.checkpointSteps.isEmpty
                        ? outcome.exitStatus : ExitStatus.runAgain
                    close(attempt, code: code, decision: "\(cause). Not restarted: a stop was requested")
                    return code
                }
                if let left = timeLeft, left < pause + 10 {
                    close(
                        attempt, code: ExitStatus.runAgain,
                        decision: "\(cause). No time is left to restart")
                    return ExitStatus.runAgain
                }
                from = next
                let origin = job.origin(from)
                let count =
                    outcome.hasLostHosts
                    ? "restart \(policy.restartsAfterLosses) after lost hosts, not counted by --max-restarts"
                    : "restart \(policy.restarts) of \(settings.maxRestarts) without a new checkpoint"
                writePostMortem(attempt, cause, "restarted \(origin)")
                say("\(cause)")
                say(
                    "restarting in \(duration(pause)) \(origin) (\(count)); \(attempt.folder)/postmortem.txt"
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

    /// Waits for the ranks of a launcher that was killed, which save a checkpoint. Those that remain after
    /// that are killed through the host reports.
    private func waitForAbandoned() {
        guard let previousID else { return }
        let processes = AttemptProcesses(previousID)
        let deadline = monotonicTime() + LaunchGuard.patience + 5
        var isAnnounced = false
        while !processes.find().isEmpty, monotonicTime() < deadline, SignalCounts.received == nil {
            if !isAnnounced {
                say("the launcher of the previous attempt was killed; waiting for its ranks to exit")
            }
            isAnnounced = true
            usleep(100_000)
        }
    }

    /// Reports the hosts that were left out of the previous attempt and take part in this one.
    private func noteReturned(_ placed: Crew.Placed) {
        let hosts = placed.shares.map(\.host)
        let returned = isRestart ? hosts.filter { !lastHosts.contains($0) } : []
        if !returned.isEmpty { say("\(returned.joined(separator: ", ")): available again") }
        lastHosts = Set(hosts)
    }

    // MARK: One attempt

    /// A running attempt.
    private final class Attempt {
        let index: Int
        let id: String
        let folder: String
        let placed: Crew.Placed
        let child: ChildProcess
        let launchGuard: LaunchGuard
        var logs: RankLogs
        let reader: StatusReader
        /// The latest status.json that belongs to this attempt.
        var status: JobStatus?

        init(
            index: Int, id: String, folder: String, run: String, placed: Crew.Placed, child: ChildProcess,
            launchGuard: LaunchGuard
        ) {
            (self.index, self.id, self.folder, self.placed) = (index, id, folder, placed)
            (self.child, self.launchGuard) = (child, launchGuard)
            logs = RankLogs(folder: folder, of: child)
            reader = StatusReader(run, attempt: id)
        }
    }

    private func start(_ placed: Crew.Placed, _ from: RestartPolicy.Start) throws -> Attempt {
        let number = (record.attempts.last?.number ?? 0) + 1
        let id = String(UInt64.random(in: 1 << 60...UInt64.max), radix: 16)
        var words = job.program
        if let timeLeft { words += ["--time-limit", String(format: "%.1f", max(1, timeLeft))] }
        if let timeout = settings.collectiveTimeout { words += ["--collective-timeout", String(timeout)] }
        if let timeout = settings.storageTimeout { words += ["--storage-timeout", String(timeout)] }
        // Once the run has its own checkpoints, they take precedence over a path. `--resume auto` selects
        // them explicitly, since `none` or a path to one of the run's earlier checkpoints would be rejected.
        // Without checkpoints, the command line applies again.
        if isRestart, job.resume != "auto", !job.checkpointSteps.isEmpty { words += ["--resume", "auto"] }
        if case .before(let step) = from { words += ["--resume-before", String(step)] }
        var marks = [LaunchAttempt.variable: id, LaunchAttempt.supervisedVariable: "1"]
        // Identifies an attempt that is known to be over, so that the ranks do not wait for its lock.
        if let previousID { marks[LaunchAttempt.supersededVariable] = previousID }
        let mpirun = placed.mpirun(words, marks)
        say(placed.summary)
        if let warning = placed.fileLimitWarning { say(warning) }
        let launchGuard = try LaunchGuard(program: crew.program, attempt: id, saves: true)
        let child = try ChildProcess(
            [mpirun.executable] + mpirun.arguments,
            environment: ProcessInfo.processInfo.environment.merging(mpirun.environment) { _, ours in ours },
            output: .captured)
        record.attempts.append(
            LaunchRecord.Attempt(
                number: number, id: id, hosts: placed.hosts, threads: placed.threads,
                startedAt: Date().timeIntervalSince1970, firstStep: job.checkpointSteps.last))
        let folder = "\(job.run)/\(LaunchRecord.logs)/attempt-\(padded(number, digits: 4))"
        let attempt = Attempt(
            index: record.attempts.count - 1, id: id, folder: folder, run: job.run, placed: placed,
            child: child,
            launchGuard: launchGuard)
        if let problem = attempt.logs.problem { say("warning: \(problem)") }
        record.write(job.run)
        (previousID, isRestart) = (id, true)
        return attempt
    }

    /// Watches an attempt until it ends.
    private func finish(_ attempt: Attempt) -> (RestartPolicy.Outcome, cause: String) {
        var watch = StartWatch(
            startTimeout: settings.startTimeout,
            limits: WatchLimits(
                collectiveTimeout: settings.collectiveTimeout, storageTimeout: settings.storageTimeout),
            now: monotonicTime())
        var isAnnounced = false
        var isForwarded = false
        var lookedAt = -Double.infinity
        var killed: String?
        var firstRank = FirstRankProcess()
        var ending: ChildProcess.Ending?
        while ending == nil {
            ending = attempt.child.poll()
            attempt.logs.take(isLast: ending != nil, show: show)
            let now = monotonicTime()
            if let signal = SignalCounts.received, !isAnnounced {
                isAnnounced = true
                say(
                    "\(signalName(signal)): stopping after the current step, with a checkpoint; repeat to end immediately"
                )
            }
            if SignalCounts.isImpatient, killed == nil {
                killed = "stopped immediately, as requested"
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
            // A heartbeat state of `.done` means that rank 0 has ended normally; its last status may still
            // wait for the disk.
            if killed == nil, attempt.logs.heartbeat?.state != .done,
                let fault = firstRank.fault(attempt.status, now: now)
            {
                killed = fault
                kill(attempt)
            }
            if isAnnounced, !isForwarded, attempt.logs.heartbeat != nil {
                // mpirun forwards SIGUSR1 and kills no rank, whereas its handling of SIGTERM leaves ranks no
                // time to save. Before the first heartbeat, SIGUSR1 would be lost or would end mpirun itself.
                attempt.child.send(SIGUSR1)
                isForwarded = true
            }
            if ending == nil { usleep(20_000) }
        }
        look(attempt, attempt.reader.finish(within: Self.lastRead))
        AttemptProcesses(attempt.id).kill()
        attempt.launchGuard.dismiss()
        return outcome(of: attempt, ending, killed)
    }

    private func kill(_ attempt: Attempt) {
        // Ranks and remote daemons exit when they lose mpirun, but stopped ranks on this host do not.
        AttemptProcesses(attempt.id).kill()
        attempt.child.killGroup()
    }

    /// Seconds to read the last status after the job has ended.
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

    // MARK: The end of an attempt

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
                ? "a rank was killed by signal \(signal) (\(signalName(signal)))"
                    + (signal == SIGKILL ? ", which the kernel sends when memory runs out" : "")
                : "the job ended with exit code \(status)"
        case nil: (code, cause) = (ExitStatus.crash, "the job is lost")
        }
        if let killed { (code, cause) = (code == ExitStatus.success ? ExitStatus.crash : code, killed) }
        var isSilent = killed != nil
        if case .lost(let reason)? = attempt.logs.heartbeat?.state {
            (code, cause, isSilent) = (ExitStatus.crash, reason, false)
        }
        // The status that the ranks wrote is more reliable than mpirun's exit code, which combines several
        // ranks.
        if let found, found.state != .running, let reported = found.exitStatus {
            (code, cause) = (reported, found.message ?? cause)
        }
        if SignalCounts.isImpatient { code = 128 + (SignalCounts.received ?? SIGTERM) }
        record.attempts[attempt.index].endedAt = Date().timeIntervalSince1970
        record.attempts[attempt.index].exitStatus = code
        record.attempts[attempt.index].message = cause
        record.attempts[attempt.index].lastStep =
            found?.progress?.step ?? record.attempts[attempt.index].lastStep
        let faultStep = code == ExitStatus.numericalFault ? found?.ranks.first?.reading.step : nil
        let lost = lostHosts(attempt, code, isSilent: isSilent)
        if !lost.isEmpty { cause += " (attributed to \(lost.sorted().joined(separator: ", ")))" }
        return (
            RestartPolicy.Outcome(
                exitStatus: code, hasTrained: found?.ranks.contains { $0.reading.stepSeconds > 0 } == true,
                checkpoints: job.checkpointSteps, faultStep: faultStep, hasLostHosts: !lost.isEmpty), cause
        )
    }

    /// The hosts that a failure is attributed to, as the user names them. Also records them in `health`.
    ///
    /// - Parameter isSilent: whether the heartbeat of rank 0, which would have named the missing ranks, timed
    ///   out itself.
    private func lostHosts(_ attempt: Attempt, _ code: Int32, isSilent: Bool) -> Set<String> {
        let all = Set(attempt.placed.shares.map(\.host))
        if (job.checkpointSteps.last ?? -1) > (record.attempts[attempt.index].firstStep ?? -1) {
            health.committed(all)
        }
        let isReported = [
            ExitStatus.success, ExitStatus.usage, ExitStatus.refused, ExitStatus.numericalFault,
            ExitStatus.storageFault, ExitStatus.runAgain,
        ].contains(code)
        guard all.count > 1, !isReported, !SignalCounts.isImpatient else { return [] }
        let found = attempt.status
        let isAgreed = found?.state == .failed && found?.missing == nil && !isSilent
        let missing = Set(found?.missing ?? (isSilent ? [0] : []))
        let culprits = (found?.ranks ?? []).filter { missing.contains($0.rank) }
        let silence = WatchLimits(collectiveTimeout: settings.collectiveTimeout).silence
        func names(_ members: [JobWatch.Member]) -> Set<String> {
            Set(members.map { attempt.placed.names[$0.host] ?? $0.host }).intersection(all)
        }
        var unreachable = names(culprits.filter { !$0.isGone && $0.silentSeconds > silence })
        // mpirun may have noticed a lost host before the ranks did, and it does not name the host.
        if unreachable.isEmpty, !isAgreed { unreachable = crew.unreachable(all.sorted()) }
        let lost = health.attribute(unreachable: unreachable, dead: names(culprits), all: all)
        health.failed(lost, now: monotonicTime())
        return lost
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
