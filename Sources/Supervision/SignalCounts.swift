import Foundation
import Synchronization

/// Signals that this process was sent, counted by a handler and asked for in between.
package enum SignalCounts {
    private static let stops = Atomic<Int>(0)
    private static let last = Atomic<Int32>(0)

    /// Takes the signals that end a program from now on. What nohup and its like have set to be ignored stays ignored.
    package static func listen() {
        // A lazy global must not be made by a signal handler.
        _ = (stops.load(ordering: .relaxed), last.load(ordering: .relaxed))
        for signal in [SIGINT, SIGTERM, SIGHUP, SIGUSR1] {
            var action = sigaction()
            sigaction(signal, nil, &action)
            // SIG_IGN is the handler at address 1.
            if unsafeBitCast(action.__sigaction_handler.sa_handler, to: Int.self) == 1 { continue }
            action = sigaction()
            action.__sigaction_handler.sa_handler = { number in
                _ = SignalCounts.stops.add(number == SIGUSR1 ? 0 : 1, ordering: .relaxed)
                SignalCounts.last.store(number, ordering: .relaxed)
            }
            sigaction(signal, &action, nil)
        }
    }

    /// The last one; nil while there was none.
    package static var received: Int32? {
        let number = last.load(ordering: .relaxed)
        return number == 0 ? nil : number
    }

    /// Whether somebody asks a second time.
    package static var isImpatient: Bool { stops.load(ordering: .relaxed) > 1 }
}
