/// Sums over the steps since the last logged step and since the last save. A checkpoint takes them along, so that a run
/// that was stopped between two logged steps goes on with the very curve that it would have had.
package struct RunningSums: Sendable, Equatable {
    /// Since the last logged step.
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

    /// Since the last save that the configuration asked for.
    package struct Saved: Sendable, Equatable {
        package var steps = 0
        package var loss = 0.0

        package init() {}
    }

    package var logged = Logged()
    package var saved = Saved()

    package init() {}
}
