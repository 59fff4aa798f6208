import Checkpointing
import Foundation
import Records
import Support

/// Starts and kills the runs that `verify-resume` compares; each is a `disttrain launch -n N -- train …`.
package struct VerifyResumeRuns: ~Copyable {
    package let plan: VerifyResumePlan
    /// `--config FILE --set a.b=c …`, as given by the user.
    package let options: [String]
    /// Contains one folder per run, and logs/.
    package let folder: String
    private let scratch: MPIScratch
    private let trap: SignalTrap

    /// Seconds between two polls of a run that runs to its end, and of one that is to be killed.
    private static let interval = (watching: 0.1, killing: 0.002)
    /// Number of attempts, because a run may end before it can be killed.
    private static let attempts = 3

    package init(_ plan: VerifyResumePlan, options: [String], folder: String, trap: consuming SignalTrap)
        throws
    {
        try FileManager.default.createDirectory(atPath: "\(folder)/logs", withIntermediateDirectories: true)
        let scratch = try MPIScratch()
        (self.plan, self.options, self.folder) = (plan, options, folder)
        self.scratch = scratch
        self.trap = trap
    }

    package func path(_ run: String) -> String { "\(folder)/\(run)" }

    /// Runs a training to its end.
    ///
    /// - Parameters:
    ///   - what: a description for the progress display; the name of the log is derived from it.
    ///   - name: the run's folder; an existing run resumes.
    ///   - first: the step after which the run begins.
    /// - Throws: an error with the run's message and exit code if it fails.
    package func train(_ what: String, _ name: String, ranks: Int, first: Int = 0) throws {
        let run = RunFolder(path(name))
        // Steps logged after the last checkpoint and before the kill are removed when the run resumes.
        var shown = MetricsHistory.lastStep(of: run)
        let (title, log) = names(what, ranks)
        let progress = CountProgress(title, unit: "steps", total: plan.steps, first: first)
        let job = try start(name, ranks: ranks, log: log)
        let ending = try watch(job, every: Self.interval.watching) {
            let reached = MetricsHistory.lastStep(of: run)
            if reached != shown { progress.update(reached) }
            shown = reached
            return false
        }
        guard ending == .exited(ExitStatus.success) else { throw failure(title, ending, log) }
        progress.finish(plan.steps)
    }

    /// Loads a checkpoint, trains no step, and saves the loaded state as a separate run.
    package func load(_ what: String, _ name: String, ranks: Int, from checkpoint: String, of step: Int)
        throws
    {
        let (title, log) = names(what, ranks)
        let status = StatusLine()
        status.show(["\(title): step \(step)"])
        // The schedule must reach its peak learning rate within these steps, although no step uses it.
        let settings = ["train.steps=\(step)", "optimizer.warmup_steps=0"]
        let job = try start(name, ranks: ranks, settings, resume: checkpoint, log: log)
        let ending = try watch(job, every: Self.interval.watching) { false }
        status.finish()
        guard ending == .exited(ExitStatus.success) else { throw failure(title, ending, log) }
    }

    /// Starts a training and kills all of its processes at once after a checkpoint has been committed and
    /// later steps have been completed.
    ///
    /// - Returns: the step of the newest checkpoint, and the last step that was logged.
    package func trainAndKill(_ what: String, _ name: String, ranks: Int) throws -> (saved: Int, reached: Int)
    {
        let (title, log) = names(what, ranks)
        let run = RunFolder(path(name))
        for _ in 0..<Self.attempts {
            let job = try start(name, ranks: ranks, log: log)
            let progress = CountProgress(title, unit: "steps", total: plan.steps)
            let ending = try watch(job, every: Self.interval.killing) {
                let reached = MetricsHistory.lastStep(of: run)
                if reached > 0 { progress.update(reached) }
                guard reached >= plan.killAt, let saved = try run.checkpoints.steps().last else {
                    return false
                }
                return saved < reached
            }
            let reached = MetricsHistory.lastStep(of: run)
            progress.finish(reached)
            guard ending == .killed(signal: SIGKILL) || ending == .exited(ExitStatus.success) else {
                throw failure(title, ending, log)
            }
            if let saved = try run.checkpoints.steps().last, saved < reached, reached < plan.steps {
                return (saved, reached)
            }
            // The run ended before it was killed, or was killed exactly at a checkpoint.
            try FileManager.default.removeItem(atPath: run.path)
        }
        throw LaunchError(
            "the run of \(plan.steps) steps finished \(Self.attempts) times before it could be killed after a "
                + "checkpoint; use more --steps, or a --kill-at before \(plan.killAt)")
    }

    /// - Throws: `Interruption` if this process received a termination signal while no run was watched.
    package func checkInterruption() throws { try trap.wait(0) }

    // MARK: Processes

    private func names(_ what: String, _ ranks: Int) -> (title: String, log: String) {
        let title = "\(what) on \(ranks) rank\(ranks == 1 ? "" : "s")"
        return (title, path("logs/\(title.replacingOccurrences(of: " ", with: "_")).txt"))
    }

    private func start(
        _ name: String, ranks: Int, _ settings: [String] = [], resume: String = "auto", log: String
    ) throws -> JobSession {
        // A run that fails must be reported, not restarted.
        var arguments = ["launch", "-n", String(ranks), "--max-restarts", "0", "--", "train"] + options
        for setting in plan.settings + settings { arguments += ["--set", setting] }
        arguments += ["--resume", resume, "--output", path(name)]
        return JobSession(
            leader: try ChildProcess(
                [try ownExecutable()] + arguments, environment: scratch.environment, output: .file(log),
                ownSession: true, signalMask: trap.outer))
    }

    /// Polls a job until it has ended or is to be killed. No process of the job is left when this returns or
    /// throws.
    private func watch(
        _ job: JobSession, every seconds: Double, until isOver: () throws -> Bool
    ) throws -> ChildProcess.Ending {
        var ending: ChildProcess.Ending?
        var problem: (any Error)?
        do {
            while ending == nil, try !isOver() {
                try trap.wait(seconds)
                ending = job.leader.poll()
            }
        } catch {
            problem = error
        }
        try job.killAll()
        while ending == nil { ending = job.leader.poll() }
        if let problem { throw problem }
        return ending ?? .exited(ExitStatus.crash)
    }

    /// The error for a run that ended unexpectedly.
    private func failure(_ title: String, _ ending: ChildProcess.Ending, _ log: String) -> LaunchError {
        let lines = ((try? String(contentsOfFile: log, encoding: .utf8)) ?? "").split(separator: "\n")
        let said = lines.last { $0.hasPrefix("Error") } ?? lines.last ?? "nothing"
        let (how, status) =
            switch ending {
            case .exited(let status): ("exit code \(status)", status)
            case .killed(let signal): ("signal \(signal)", ExitStatus.crash)
            }
        return LaunchError(
            "\(title) ended with \(how), expected \(ExitStatus.success); last message '\(said)'; full log in \(log)",
            exitStatus: status == ExitStatus.success ? ExitStatus.crash : status)
    }
}

/// A private folder for the session files of Open MPI, removed afterwards: a killed job leaves them behind.
struct MPIScratch: ~Copyable {
    private let folders: [String]
    /// This process's environment, with the variables that point to the folders.
    let environment: [String: String]

    init() throws {
        let own = ProcessInfo.processInfo.environment
        let settings = [
            ("OMPI_MCA_orte_tmpdir_base", own["TMPDIR"] ?? "/tmp"),
            ("OMPI_MCA_btl_vader_backing_directory", "/dev/shm"),
        ]
        var added: [String: String] = [:]
        for (name, parent) in settings
        where own[name] == nil && FileManager.default.fileExists(atPath: parent) {
            // A short name: the paths of sockets in it are limited to 107 bytes.
            var template = Array("\(parent)/dt-XXXXXX".utf8CString)
            guard mkdtemp(&template) != nil else {
                throw LaunchError(
                    "\(parent): cannot create a folder in it: \(String(cString: strerror(errno)))")
            }
            added[name] = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        }
        folders = Array(added.values)
        environment = own.merging(added) { _, new in new }
    }

    deinit { for folder in folders { try? FileManager.default.removeItem(atPath: folder) } }
}
