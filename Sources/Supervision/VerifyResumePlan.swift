import Foundation

/// The steps at which the runs of `verify-resume` end, are killed and save checkpoints.
package struct VerifyResumePlan {
    /// Steps of the complete run.
    package let steps: Int
    /// The step after which a run is killed; if no checkpoint has been committed by then, as soon as possible
    /// after one has.
    package let killAt: Int
    package let ranks: Int
    package let resumeRanks: Int
    /// `optimizer.warmup_steps` of the configuration, which is meant for a longer run.
    package var warmupSteps = 0

    package init(steps: Int, killAt: Int, ranks: Int, resumeRanks: Int, warmupSteps: Int = 0) {
        (self.steps, self.killAt, self.ranks) = (steps, killAt, ranks)
        (self.resumeRanks, self.warmupSteps) = (resumeRanks, warmupSteps)
    }

    /// Leaves room for a checkpoint and a step to be killed in, twice.
    package static let fewestSteps = 6
    package static let firstKill = 3

    /// Steps between two checkpoints. The first checkpoint is at two thirds of the kill step, and no checkpoint
    /// coincides with it.
    package var checkpointEvery: Int { killAt - max(1, killAt / 3) }

    /// At least half of the steps remain after the kill, so that a fast run does not end before it is killed.
    package static func killStep(steps: Int) -> Int { max(firstKill, steps / 2) }

    /// Settings that apply to every run, after the user's.
    package var settings: [String] {
        [
            "train.steps=\(steps)", "train.checkpoint_every=\(checkpointEvery)", "train.log_every=1",
            "train.sample_every=0", "checkpoint.keep_last=1",
            "optimizer.warmup_steps=\(min(warmupSteps, steps))",
            // The runs only verify the resume and are no experiments to track.
            "logging.tensorboard=false", "logging.wandb=off",
        ]
    }
}

/// The folder that contains the runs of `verify-resume`.
package struct VerifyResumeFolder {
    package let path: String
    /// Whether the user named the folder; such a folder is never removed.
    private let isNamed: Bool
    /// The parent folder if it was created too.
    private let madeAbove: String?

    /// Creates the folder, or checks that an existing one is empty.
    package init(_ named: String?, name: String) throws {
        isNamed = named != nil
        let id = String(UInt32.random(in: 0x1000_0000...UInt32.max), radix: 16)
        path = named ?? "runs/verify-resume-\(name)-\(id)"
        let files = FileManager.default
        guard (try? files.contentsOfDirectory(atPath: path))?.isEmpty ?? !files.fileExists(atPath: path)
        else {
            throw LaunchError(
                "\(path): not empty, expected a new or empty folder; choose another --output")
        }
        let above = (path as NSString).deletingLastPathComponent
        madeAbove = above.isEmpty || files.fileExists(atPath: above) ? nil : above
        do {
            try files.createDirectory(atPath: path, withIntermediateDirectories: true)
        } catch {
            throw LaunchError(
                "\(path): cannot be created: \(error.localizedDescription); choose another --output")
        }
    }

    package func removeUnlessNamed() {
        guard !isNamed else { return }
        try? FileManager.default.removeItem(atPath: path)
        // rmdir succeeds only if the folder is empty.
        if let madeAbove { rmdir(madeAbove) }
    }
}

/// A job that is the leader of its own session. mpirun moves every rank into a different process group, but
/// no rank leaves the session, so all processes of the job can be found, including orphans.
struct JobSession {
    /// The first process, whose process ID is the session ID.
    let leader: ChildProcess

    /// Seconds that the kernel may take to end killed processes.
    private static let patience = 10.0

    /// Kills all processes of the job at once and returns when none is left.
    ///
    /// - Throws: `LaunchError` with the processes that do not end, for example because they wait for an
    ///   unresponsive disk.
    func killAll() throws {
        let deadline = Date(timeIntervalSinceNow: Self.patience)
        while true {
            let left = processes()
            if left.isEmpty { return }
            for process in left { kill(process, SIGKILL) }
            guard Date() < deadline else {
                throw LaunchError(
                    "killed processes \(left.map(String.init).joined(separator: ", ")), but they have not exited",
                    exitStatus: 1)
            }
            usleep(1000)
        }
    }

    /// The processes of the session that have not ended.
    func processes() -> [pid_t] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
        return names.compactMap { pid_t($0) }.filter(isMember)
    }

    /// Parses /proc/PID/stat. After the process name, which may contain any character, the state is field 3
    /// and the session is field 6 of proc(5).
    private func isMember(_ process: pid_t) -> Bool {
        guard let text = try? String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8),
            let name = text.lastIndex(of: ")")
        else { return false }
        let fields = text[text.index(after: name)...].split(separator: " ")
        guard fields.count > 3, fields[0] != "Z", fields[0] != "X" else { return false }
        return pid_t(fields[3]) == leader.pid
    }
}
