import Foundation
import Support

/// A process beside each start of a job that ends the job when its launcher has died, even by SIGKILL.
///
/// Its standard input is a pipe whose only writer is the launcher, so that the kernel reports the launcher's death. A
/// launcher that ends in order writes a line first. mpirun itself would go on without its launcher, and the ranks with
/// it, with nobody to read what they print or to restart them.
package struct LaunchGuard {
    private let child: ChildProcess

    /// The subcommand that the process runs, and the line that a launcher writes which ends in order.
    package static let command = "launch-guard"
    package static let farewell = "done"

    /// Seconds that ranks have for a checkpoint before they are killed. Together with what remote ranks need to notice the
    /// end of mpirun (4 s), it must stay well below 30 s.
    package static let patience = 20.0

    /// To be started before the job, so that there is no moment without it.
    ///
    /// - Parameters:
    ///   - attempt: marks the processes of the start on this host, in their environment.
    ///   - saves: whether the ranks save a checkpoint on SIGUSR1.
    package init(program: String, attempt: String, saves: Bool) throws {
        var environment = ProcessInfo.processInfo.environment
        // It must not take itself for a process of the job.
        environment[LaunchAttempt.variable] = nil
        child = try ChildProcess(
            [program, Self.command, "--attempt", attempt] + (saves ? ["--saves"] : []),
            environment: environment, output: .inherited, hasInput: true, ownSession: true)
    }

    /// The job is over.
    package func dismiss() {
        child.send(line: Self.farewell)
        child.closeInput()
        child.end(within: 1)
    }
}
