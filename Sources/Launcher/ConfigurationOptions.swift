import ArgumentParser
import Configuration
import DistTrain

/// The configuration of commands that need one.
struct ConfigurationOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Training configuration (YAML).", valueName: "file"), completion: .file())
    var config: String
    @Option(
        name: .customLong("set"), parsing: .singleValue,
        help: ArgumentHelp("Override a setting; can be repeated.", valueName: "a.b=value"))
    var overrides: [String] = []

    /// The options as they are given.
    var arguments: [String] { ["--config", config] + overrides.flatMap { ["--set", $0] } }

    /// - Parameter more: further overrides.
    func load<Values: TrainableConfiguration>(
        _ type: Values.Type = Values.self, initFrom: String? = nil, more: [String] = []
    ) throws -> Values {
        try Values.load(
            path: config, overrides: overrides + more, initFrom: initFrom, locate: Values.locateModel)
    }
}
