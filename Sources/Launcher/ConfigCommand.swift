import ArgumentParser
import Configuration
import DistTrain
import Support

/// `disttrain config`: prints or checks a configuration.
struct ConfigCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "config", abstract: "Print a configuration with all keys, or check one.",
        discussion: """
            Without --check, prints a configuration with every key, its default, its valid values and its meaning, as \
            a starting point for your own. With --check, reads a configuration as training does and prints the effective \
            values, or the first error: file, line, key, and what is expected. Nothing is trained or written.

              disttrain config > configs/mine.yaml
              disttrain config --autoencoder > configs/my_vae.yaml
              disttrain config --check configs/mine.yaml --set train.batch_size=32

            docs/configuration.md lists the same keys.
            """)

    @Option(
        help: ArgumentHelp(
            "Configuration file to check, instead of printing the defaults.", valueName: "file"))
    var check: String?

    @Option(
        name: .customLong("set"), help: ArgumentHelp("Override a value of the file.", valueName: "key=value"))
    var overrides: [String] = []

    @Flag(
        help: """
            Print the configuration of `disttrain vae train` instead of `disttrain train`. With --check, the type is \
            detected.
            """)
    var autoencoder = false

    @Flag(help: ArgumentHelp("Print docs/configuration.md.", visibility: .hidden))
    var reference = false

    func validate() throws {
        if check == nil, !overrides.isEmpty { throw ValidationError("--set: requires --check FILE") }
    }

    func run() throws {
        if reference {
            print(ConfigurationReference.markdown(), terminator: "")
        } else if try autoencoder || check.map(ConfigurationFile.isOfAutoencoder) ?? false {
            try show(AutoencoderConfiguration.self)
        } else {
            try show(Configuration.self)
        }
    }

    private func show<Values: TrainableConfiguration>(_ type: Values.Type) throws {
        let values = try check.map {
            try Values.load(path: $0, overrides: overrides, locate: Values.locateModel)
        }
        print(ConfigurationReference.commentedYAML(type, values: values), terminator: "")
        if let check { Console.error.write("\(check): valid\n") }
    }
}
