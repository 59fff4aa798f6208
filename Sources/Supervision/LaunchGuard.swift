import Foundation
import Support

/// A helper process, one per attempt, that ends the job when its launcher has died, even by SIGKILL.
///
/// Its standard input is a pipe whose only writer is the launcher, so it reads end-of-file when the launcher
/// dies. A launcher that exits normally writes a line first. Without this process, mpirun and the ranks would
/// continue without a launcher that reads their output or restarts them.
package struct LaunchGuard {
    private let child: ChildProcess

    /// The subcommand that the process runs, and the line that a launcher writes when it exits normally.
    package static let command = "launch-guard"
    package static let farewell = "done"

    /// Seconds that ranks have for a checkpoint before they are killed. Together with the time that remote
    /// ranks need to detect the end of mpirun (4 s), it must stay well below 30 s.
    package static let patience = 20.0

    /// Starts the helper process. Call this before starting the job, so that the job never runs without it.
    ///
    /// - Parameters:
    ///   - attempt: the value of the environment variable that marks the attempt's processes on this host.
    ///   - saves: whether the ranks save a checkpoint on SIGUSR1.
    package init(program: String, attempt: String, saves: Bool) throws {
        var environment = ProcessInfo.processInfo.environment
        // Without this, the helper would count itself as a process of the job.
        environment[LaunchAttempt.variable] = nil
        child = try ChildProcess(
            [program, Self.command, "--attempt", attempt] + (saves ? ["--saves"] : []),
            environment: environment, output: .inherited, hasInput: true, ownSession: true)
    }

    /// Ends the helper process after the job is over.
    package func dismiss() {
        child.send(line: Self.farewell)
        child.closeInput()
        child.end(within: 1)
    }
}
