import Foundation
import Support
import Synchronization

/// Blocks the signals that would end this process for as long as the value exists, so that a command can
/// clean up first. `wait` checks for them.
package struct SignalTrap: ~Copyable {
    /// The original signal mask, for child processes.
    package let outer: sigset_t
    private let waited: sigset_t

    package init() {
        var waited = sigset_t()
        var outer = sigset_t()
        sigemptyset(&waited)
        sigaddset(&waited, SIGCHLD)
        for signal in [SIGINT, SIGTERM, SIGHUP] where !isIgnored(signal) {
            sigaddset(&waited, signal)
        }
        pthread_sigmask(SIG_BLOCK, &waited, &outer)
        (self.outer, self.waited) = (outer, waited)
    }

    deinit {
        var mask = outer
        pthread_sigmask(SIG_SETMASK, &mask, nil)
    }

    /// Waits for `seconds`, or until a child has ended.
    ///
    /// - Throws: `Interruption` if a termination signal was received.
    package func wait(_ seconds: Double) throws {
        var mask = waited
        var time = timespec(
            tv_sec: Int(seconds), tv_nsec: Int(seconds.truncatingRemainder(dividingBy: 1) * 1e9))
        let signal = sigtimedwait(&mask, nil, &time)
        if signal > 0, signal != SIGCHLD { throw Interruption(signal: signal) }
    }
}

/// This process received a termination signal.
package struct Interruption: ReportableError {
    package let signal: Int32
    package var message: String { "stopped by signal \(signal) (\(String(cString: strsignal(signal))))" }
    /// The exit code that a shell reports for the signal.
    package var exitStatus: Int32 { 128 + signal }
}

/// Counts the termination signals that this process receives. A handler counts, and the program polls.
package enum SignalCounts {
    private static let stops = Atomic<Int>(0)
    private static let last = Atomic<Int32>(0)

    /// Installs the handlers. Signals that are already ignored, for example because of nohup, stay ignored.
    package static func listen() {
        // Initialize the lazy globals now, because a signal handler must not do it.
        _ = (stops.load(ordering: .relaxed), last.load(ordering: .relaxed))
        handleSignals([SIGINT, SIGTERM, SIGHUP, SIGUSR1]) { number in
            _ = SignalCounts.stops.add(number == SIGUSR1 ? 0 : 1, ordering: .relaxed)
            SignalCounts.last.store(number, ordering: .relaxed)
        }
    }

    /// The last signal; nil if none was received.
    package static var received: Int32? {
        let number = last.load(ordering: .relaxed)
        return number == 0 ? nil : number
    }

    /// Whether a second termination request was received.
    package static var isImpatient: Bool { stops.load(ordering: .relaxed) > 1 }
}

/// The path of the running program, so that the ranks run the same executable regardless of PATH.
package func ownExecutable() throws -> String {
    try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
}
