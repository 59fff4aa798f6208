import Foundation
import Synchronization

/// A request to end the job: SIGTERM, SIGINT or SIGUSR1, sent to any of its processes.
///
/// Training then stops after a step that all ranks agree on, with a checkpoint and exit code 75. A second
/// SIGINT ends the process at once.
package enum StopRequest {
    private static let received = Atomic<Int32>(0)
    private static let signals = [SIGTERM, SIGINT, SIGUSR1]

    /// Installs handlers for these signals. Call it before MPI starts, because MPI would otherwise install
    /// its own handlers.
    package static func listen() {
        // Initialize the lazy global here, because a signal handler must not do so.
        _ = received.load(ordering: .relaxed)
        for signal in signals where !isIgnored(signal) {
            var action = sigaction()
            action.__sigaction_handler.sa_handler = { number in
                let earlier = StopRequest.received.exchange(number, ordering: .relaxed)
                if earlier == SIGINT && number == SIGINT { _exit(128 + SIGINT) }
            }
            // Restart interrupted system calls.
            action.sa_flags = SA_RESTART
            sigaction(signal, &action, nil)
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

    /// Signals that are already ignored, for example under nohup, stay ignored.
    private static func isIgnored(_ signal: Int32) -> Bool {
        var action = sigaction()
        sigaction(signal, nil, &action)
        // SIG_IGN is the handler at address 1.
        return unsafeBitCast(action.__sigaction_handler.sa_handler, to: Int.self) == 1
    }
}

/// Training stopped early on request, with a checkpoint.
package struct StoppedEarly: ReportableError {
    package let step: Int
    package let steps: Int
    /// Example: "SIGUSR1 on rank 2", "the time limit".
    package let reason: String

    package init(step: Int, steps: Int, reason: String) {
        self.step = step
        self.steps = steps
        self.reason = reason
    }
    package var exitStatus: Int32 { ExitStatus.runAgain }
    package var message: String {
        "stopped by \(reason) after step \(step) of \(steps), with a checkpoint; give the same command again to go on"
    }
}
