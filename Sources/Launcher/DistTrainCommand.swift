import DistTrain
import ArgumentParser
@main struct DistTrainCommand: ParsableCommand { static let configuration = CommandConfiguration(commandName: "disttrain") }
