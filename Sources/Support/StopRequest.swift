import Foundation
import Synchronization

/// A request to end the job: SIGTERM, SIGINT or SIGUSR1, sent to any of its processes.
///
/// Training then stops after a step that all ranks agree on, with a checkpoint and exit code 75. A second
/// SIGINT ends the process at once.
package enum StopRequest {
    private static let received = Atomic<Int32>(0)

    /// Installs handlers for these signals. Call it before MPI starts, because MPI would otherwise install
    /// its own handlers.
    package static func listen() {
        // Initialize the lazy global here, because a signal handler must not do so.
        _ = received.load(ordering: .relaxed)
        handleSignals([SIGTERM, SIGINT, SIGUSR1], flags: SA_RESTART) { number in
            let earlier = StopRequest.received.exchange(number, ordering: .relaxed)
            if earlier == SIGINT && number == SIGINT { _exit(128 + SIGINT) }
        }
    }

    /// The name of the received signal; nil if none has arrived.
    package static var signal: String? {
        switch received.load(ordering: .relaxed) {
        case 0: nil
        case SIGTERM: "SIGTERM"
        case SIGINT: "SIGINT"
        default: "SIGUSR1"
        }
    }
}

/// Installs a signal handler. Signals that are already ignored, for example under nohup, stay ignored.
///
/// - Parameters:
///   - flags: `SA_RESTART` restarts interrupted system calls.
///   - handler: may only call what is safe in a signal handler, and must not initialize a lazy global.
package func handleSignals(
    _ signals: [Int32], flags: Int32 = 0, _ handler: @escaping @convention(c) (Int32) -> Void
) {
    for signal in signals where !isIgnored(signal) {
        var action = sigaction()
        action.__sigaction_handler.sa_handler = handler
        action.sa_flags = flags
        sigaction(signal, &action, nil)
    }
}

/// Whether this process ignores a signal.
package func isIgnored(_ signal: Int32) -> Bool {
    var action = sigaction()
    sigaction(signal, nil, &action)
    // SIG_IGN is the handler at address 1.
    return unsafeBitCast(action.__sigaction_handler.sa_handler, to: Int.self) == 1
}

/// Training stopped early on request, with a checkpoint.
package struct StoppedEarly: ReportableError {
    package let step: Int
    package let steps: Int
    /// Example: "SIGUSR1 on rank 2", "the time limit".
    package let reason: String

    package init(step: Int, steps: Int, reason: String) {
        (self.step, self.steps, self.reason) = (step, steps, reason)
    }
    package var exitStatus: Int32 { ExitStatus.runAgain }
    package var message: String {
        "stopped by \(reason) after step \(step) of \(steps), with a checkpoint; repeat the same command to resume"
    }
}

/// Identifies the launch that this process belongs to, from its launcher's environment variables.
package enum LaunchAttempt {
    /// Environment variables that the launcher sets for its ranks: the ID of this launch, and of the earlier
    /// launch that has ended.
    package static let variable = "DISTTRAIN_ATTEMPT"
    package static let supersededVariable = "DISTTRAIN_SUPERSEDES"
    /// Set if the launcher reads the ranks' output. Otherwise it goes to the user.
    package static let supervisedVariable = "DISTTRAIN_SUPERVISED"

    /// The ID of this launch; nil if the process was not started by a launcher.
    package static var current: String? { ProcessInfo.processInfo.environment[variable] }
    /// Whether a launcher expects heartbeats in the output of rank 0.
    package static var isSupervised: Bool {
        ProcessInfo.processInfo.environment[supervisedVariable] != nil
    }
    package static var superseded: String? { ProcessInfo.processInfo.environment[supersededVariable] }
}

/// The limit on open files and connections of this process.
package enum OpenFileLimit {
    /// Raises the soft limit to the hard limit. The usual soft limit of 1,024 exists for programs that use
    /// select(2).
    package static func raise() {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0,
            limit.rlim_cur < limit.rlim_max
        else { return }
        limit.rlim_cur = limit.rlim_max
        // If this fails, the limit stays unchanged and `shortage` reports it.
        _ = setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }

    /// A message if `count` more files cannot be opened; nil if they can.
    ///
    /// - Parameter purpose: what they are used for, such as "connections to 2000 ranks".
    package static func shortage(of count: Int, for purpose: String) -> String? {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return nil }
        let open = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count) ?? 0
        let needed = open + count + reserve
        guard limit.rlim_cur < needed else { return nil }
        return "at most \(limit.rlim_cur) files may be open (ulimit -n), and about \(needed) are needed for "
            + "\(purpose): raise the limit"
    }

    /// Allowance for other files of a run: checkpoints, records, data.
    private static let reserve = 32
}
