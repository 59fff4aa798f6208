import Foundation
import Records
import Support

/// Calls Slurm's commands.
package enum Slurm {
    /// Expands "node[1-3,7]" into names.
    package static func names(of list: String) throws -> [String] {
        let text = try run(["scontrol", "show", "hostnames", list])
        return text.split(separator: "\n").map(String.init)
    }

    /// Runs a command and returns its output.
    ///
    /// - Throws: `LaunchError` with the end of its output if it fails or does not respond.
    package static func run(_ words: [String], timeout: Double = 30) throws -> String {
        let line = words.joined(separator: " ")
        guard let child = ShortChild(words) else {
            throw LaunchError("`\(line)` cannot be started: is Slurm installed on this host?")
        }
        guard let ending = child.finish(by: monotonicTime() + timeout) else {
            throw LaunchError("`\(line)` did not respond within \(duration(timeout))")
        }
        guard ending.status == 0 else {
            throw LaunchError(
                "`\(line)` failed: \(ending.error.split(separator: "\n").last ?? "no error message")")
        }
        return ending.output
    }
}

extension SlurmAllocation {
    /// Seconds until Slurm ends the job; nil if there is no limit or Slurm does not report one.
    package func timeLeft() -> Double? {
        // "3:49:57", "1-02:00:00", "UNLIMITED", "INVALID"
        guard let text = try? Slurm.run(["squeue", "--noheader", "--jobs", job, "--format", "%L"]) else {
            return nil
        }
        let trimmed = text.trimmingCharacters(in: .whitespacesAndNewlines)
        return trimmed.contains(":") ? TimeSpan.seconds(trimmed) : nil
    }

    /// Requeues the job and waits for Slurm to end this process. A batch script that exits by itself would
    /// count as completed.
    package func requeue(say: (String) -> Void) throws {
        say("requeuing job \(job) (requeue \(restarts + 1)), to resume from its checkpoint")
        // Restore the default action of the termination signals, so that Slurm can end this process.
        for number in [SIGTERM, SIGINT, SIGHUP] { signal(number, SIG_DFL) }
        _ = try Slurm.run(["scontrol", "requeue", job])
        sleep(120)
        say("Slurm has not ended this job, although it was requeued")
    }
}
