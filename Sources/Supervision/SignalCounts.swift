import Foundation
import Synchronization

/// Counts the termination signals that this process receives. A handler counts, and the program polls.
package enum SignalCounts {
    private static let stops = Atomic<Int>(0)
    private static let last = Atomic<Int32>(0)

    /// Installs the handlers. Signals that are already ignored, for example because of nohup, stay ignored.
    package static func listen() {
        // Initialize the lazy globals now, because a signal handler must not do it.
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

    /// The last signal; nil if none was received.
    package static var received: Int32? {
        let number = last.load(ordering: .relaxed)
        return number == 0 ? nil : number
    }

    /// Whether a second termination request was received.
    package static var isImpatient: Bool { stops.load(ordering: .relaxed) > 1 }
}
