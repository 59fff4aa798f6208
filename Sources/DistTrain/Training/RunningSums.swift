/// Sums over the steps since the last logged step and since the last save. A checkpoint takes them along, so that a run
/// that was stopped between two logged steps goes on with the very curve that it would have had.
public struct RunningSums: Sendable, Equatable {
    /// Since the last logged step.
    public struct Logged: Sendable, Equatable {
        public var steps = 0
        public var loss = 0.0
        public var gradientNorm = 0.0
        public var parts: [(name: String, value: Double)] = []

        public init() {}

        public static func == (a: Self, b: Self) -> Bool {
            a.steps == b.steps && a.loss == b.loss && a.gradientNorm == b.gradientNorm
                && a.parts.elementsEqual(b.parts, by: ==)
        }

        mutating func add(_ result: StepResult) {
            steps += 1
            loss += result.loss
            gradientNorm += result.gradientNorm
            if parts.isEmpty {
                parts = result.parts
            } else {
                for index in parts.indices { parts[index].value += result.parts[index].value }
            }
        }
    }

    /// Since the last save that the configuration asked for.
    public struct Saved: Sendable, Equatable {
        public var steps = 0
        public var loss = 0.0

        public init() {}
    }

    public var logged = Logged()
    public var saved = Saved()

    public init() {}

    mutating func add(_ result: StepResult) {
        logged.add(result)
        saved.steps += 1
        saved.loss += result.loss
    }
}
