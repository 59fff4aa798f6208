import Foundation

/// Seconds on the monotonic clock, CLOCK_MONOTONIC.
package func monotonicSeconds() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
}

/// Formats a duration for users: `45 s`, `12 min`, `3 h 20 min`, `2 d 5 h`.
package func duration(_ seconds: Double) -> String {
    guard seconds.isFinite, seconds >= 0, seconds < 1e9 else { return "unknown" }
    let whole = Int(seconds.rounded())
    if whole < 100 { return "\(whole) s" }
    let minutes = (whole + 30) / 60
    if minutes < 100 { return "\(minutes) min" }
    if minutes < 48 * 60 { return "\(minutes / 60) h \(minutes % 60) min" }
    return "\(minutes / 1440) d \(minutes % 1440 / 60) h"
}

/// Decides when training must stop so that its last checkpoint is durable before the time limit.
///
/// The estimate uses the longest measured interval between two calls of `isDue` (a step with the samples and
/// records after it) and the longest measured save, both multiplied by a safety factor of 1.5.
package struct TimeLimit {
    /// In seconds on the clock of `monotonicSeconds`.
    private let end: Double
    /// Assumed duration of a save in seconds until one has been measured.
    private let guess: Double
    private var lastChance: Double?
    private var longestStretch = 0.0
    /// In seconds; nil until a save has been measured.
    private var longestSave: Double?

    /// Seconds for shutting down MPI and the launcher.
    package static let margin = 3.0
    private static let caution = 1.5

    /// - Parameter seconds: the time limit, counted from now.
    package init(seconds: Double, now: Double = monotonicSeconds()) {
        end = now + seconds
        // For a short limit, do not reserve a large part of it.
        guess = min(5, seconds / 20)
    }

    package mutating func saved(in seconds: Double) { longestSave = max(longestSave ?? 0, seconds) }

    /// Whether to stop now; call it after each step.
    package mutating func isDue(now: Double = monotonicSeconds()) -> Bool {
        if let lastChance { longestStretch = max(longestStretch, now - lastChance) }
        lastChance = now
        return now + Self.caution * (longestStretch + (longestSave ?? guess)) + Self.margin >= end
    }
}
