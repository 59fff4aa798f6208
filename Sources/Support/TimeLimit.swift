/// When training has to stop so that its last checkpoint is on the disk in time.
///
/// Measured as it goes: the longest stretch between two chances to stop (a step, with the samples and records after
/// it) and the longest save. What happens next may take half as long again.
package struct TimeLimit {
    /// On the clock of `monotonicSeconds`.
    private let end: Double
    /// Seconds that a save is taken for until one has been measured.
    private let guess: Double
    private var lastChance: Double?
    private var longestStretch = 0.0
    /// nil until one has been measured.
    private var longestSave: Double?

    /// Seconds for leaving MPI and the launcher.
    package static let margin = 3.0
    private static let caution = 1.5

    /// - Parameter seconds: from now on.
    package init(seconds: Double, now: Double = monotonicSeconds()) {
        end = now + seconds
        // Of a short time no large part may be kept back for it.
        guess = min(5, seconds / 20)
    }

    package mutating func saved(in seconds: Double) { longestSave = max(longestSave ?? 0, seconds) }

    /// Whether to stop now, asked after each step.
    package mutating func isDue(now: Double = monotonicSeconds()) -> Bool {
        if let lastChance { longestStretch = max(longestStretch, now - lastChance) }
        lastChance = now
        return now + Self.caution * (longestStretch + (longestSave ?? guess)) + Self.margin >= end
    }
}
