import ArgumentParser

/// A training command that a supervisor can restart.
protocol TrainingCommand: ParsableCommand {
    var options: TrainingOptions { get }
    /// The run's folder, from the command line or the configuration.
    func runFolder() throws -> String
}
