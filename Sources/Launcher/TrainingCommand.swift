import ArgumentParser

/// A command that trains, and that a supervisor can start again.
protocol TrainingCommand: ParsableCommand {
    var options: TrainingOptions { get }
    /// The run's folder, from the command line or the configuration.
    func runFolder() throws -> String
}
