/// Sums over the steps since the last logged step and since the last save. They are stored in checkpoints, so
/// that a run that was stopped between two logged steps resumes with exactly the metrics it would have had.
package struct RunningSums: Sendable, Equatable {
    /// Sums since the last logged step.
    package struct Logged: Sendable, Equatable {
        package var steps = 0
        package var loss = 0.0
        package var gradientNorm = 0.0
        package var parts: [(name: String, value: Double)] = []

        package init() {}

        package static func == (a: Self, b: Self) -> Bool {
            a.steps == b.steps && a.loss == b.loss && a.gradientNorm == b.gradientNorm
                && a.parts.elementsEqual(b.parts, by: ==)
        }
    }

    /// Sums since the last save that the configuration scheduled.
    package struct Saved: Sendable, Equatable {
        package var steps = 0
        package var loss = 0.0

        package init() {}
    }

    package var logged = Logged()
    package var saved = Saved()

    package init() {}
}
