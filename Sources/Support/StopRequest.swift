import Foundation
import Synchronization

/// Somebody wants the job to end: SIGTERM, SIGINT or SIGUSR1, to any of its processes.
///
/// Training then ends after a step on which all ranks agree, with a checkpoint and exit code 75. A second SIGINT ends
/// the process at once.
package enum StopRequest {
    private static let received = Atomic<Int32>(0)
    private static let signals = [SIGTERM, SIGINT, SIGUSR1]

    /// Takes these signals from now on. To be called before MPI starts, which would else have them its own way.
    package static func listen() {
        // A lazy global must not be made by a signal handler.
        _ = received.load(ordering: .relaxed)
        for signal in signals where !isIgnored(signal) {
            var action = sigaction()
            action.__sigaction_handler.sa_handler = { number in
                let earlier = StopRequest.received.exchange(number, ordering: .relaxed)
                if earlier == SIGINT && number == SIGINT { _exit(128 + SIGINT) }
            }
            // What waits for a file or a message goes on waiting.
            action.sa_flags = SA_RESTART
            sigaction(signal, &action, nil)
        }
    }

    /// The signal that asked for it; nil while nobody has.
    package static var signal: String? {
        switch received.load(ordering: .relaxed) {
        case 0: nil
        case SIGTERM: "SIGTERM"
        case SIGINT: "SIGINT"
        default: "SIGUSR1"
        }
    }

    /// What nohup and its like have set to be ignored stays ignored.
    private static func isIgnored(_ signal: Int32) -> Bool {
        var action = sigaction()
        sigaction(signal, nil, &action)
        // SIG_IGN is the handler at address 1.
        return unsafeBitCast(action.__sigaction_handler.sa_handler, to: Int.self) == 1
    }
}

/// Training ended early, as it was asked to, with a checkpoint.
package struct StoppedEarly: ReportableError {
    package let step: Int
    package let steps: Int
    /// "SIGUSR1 on rank 2", "the time limit".
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
