import Foundation

/// The start of a run that this process belongs to, as its launcher names it.
package enum LaunchAttempt {
    /// Variables by which a launcher tells ranks which start they are, and which one before is over.
    package static let variable = "DISTTRAIN_ATTEMPT"
    package static let supersededVariable = "DISTTRAIN_SUPERSEDES"

    /// This process's; nil where no launcher has started it.
    package static var current: String? { ProcessInfo.processInfo.environment[variable] }
    package static var superseded: String? { ProcessInfo.processInfo.environment[supersededVariable] }
}
