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
