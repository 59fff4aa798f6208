import Foundation
import Support

/// Takes the signals that would end this process, so that a command can put things in order first. They are held back as
/// long as it exists, and looked at by `wait`.
package struct SignalTrap: ~Copyable {
    /// The mask that children are to begin with.
    package let outer: sigset_t
    private let waited: sigset_t

    package init() {
        var waited = sigset_t()
        var outer = sigset_t()
        sigemptyset(&waited)
        sigaddset(&waited, SIGCHLD)
        for signal in [SIGINT, SIGTERM, SIGHUP] where !ChildProcess.isIgnored(signal) {
            sigaddset(&waited, signal)
        }
        pthread_sigmask(SIG_BLOCK, &waited, &outer)
        (self.outer, self.waited) = (outer, waited)
    }

    deinit {
        var mask = outer
        pthread_sigmask(SIG_SETMASK, &mask, nil)
    }

    /// Waits for so many seconds, or until a child has ended.
    ///
    /// - Throws: `Interruption` where this process is told to end.
    package func wait(_ seconds: Double) throws {
        var mask = waited
        var time = timespec(
            tv_sec: Int(seconds), tv_nsec: Int(seconds.truncatingRemainder(dividingBy: 1) * 1e9))
        let signal = sigtimedwait(&mask, nil, &time)
        if signal > 0, signal != SIGCHLD { throw Interruption(signal: signal) }
    }
}

/// This process was told to end.
package struct Interruption: ReportableError {
    package let signal: Int32
    package var message: String { "stopped by signal \(signal) (\(String(cString: strsignal(signal))))" }
    /// As a shell tells it.
    package var exitStatus: Int32 { 128 + signal }
}
