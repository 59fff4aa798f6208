import ArgumentParser
import DistTrain

@main
struct DistTrainCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "disttrain",
        abstract: "Trains latent diffusion models on clusters of CPUs.",
        subcommands: [LaunchCommand.self, SelfTestCommand.self])

    static func main() { runAndExit() }
}
