import Foundation

/// Identifies the launch that this process belongs to, from its launcher's environment variables.
package enum LaunchAttempt {
    /// Environment variables that the launcher sets for its ranks: the ID of this launch, and of the earlier
    /// launch that has ended.
    package static let variable = "DISTTRAIN_ATTEMPT"
    package static let supersededVariable = "DISTTRAIN_SUPERSEDES"

    /// The ID of this launch; nil if the process was not started by a launcher.
    package static var current: String? { ProcessInfo.processInfo.environment[variable] }
    package static var superseded: String? { ProcessInfo.processInfo.environment[supersededVariable] }
}
