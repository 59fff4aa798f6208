import ArgumentParser
import DistTrain
import Foundation

/// A command that trains, and that a supervisor can start again.
protocol TrainingCommand: ParsableCommand {
    var options: TrainingOptions { get }
    /// The run's folder, from the command line or the configuration.
    func runFolder() throws -> String
}

/// A training that is supervised: its command line and its run's folder.
struct TrainingJob {
    /// The program and its arguments.
    let program: [String]
    /// The run's folder.
    let run: String

    private var checkpoints: CheckpointFolder { RunFolder(run).checkpoints }

    /// Ascending.
    var checkpointSteps: [Int] { (try? checkpoints.steps()) ?? [] }

    /// Where a new start goes on.
    var place: String {
        checkpointSteps.last.map { "from the checkpoint of step \($0)" } ?? "from the beginning"
    }

    /// The path of the last but one.
    var checkpointBeforeNewest: String? {
        checkpointSteps.dropLast().last.map { checkpoints.path(step: $0) }
    }

    /// A file in the run's folder by which hosts prove that they share it, and what it says. A folder that does not exist
    /// yet is made by the ranks: its nearest parent stands for it.
    func marker() -> (path: String, text: String)? {
        var folder = (run as NSString).standardizingPath
        if !folder.hasPrefix("/") { folder = FileManager.default.currentDirectoryPath + "/" + folder }
        while !FileManager.default.fileExists(atPath: folder), folder != "/" {
            folder = (folder as NSString).deletingLastPathComponent
        }
        let path = "\(folder)/.disttrain-\(getpid())-marker"
        let text = String(UInt64.random(in: 0...UInt64.max), radix: 16)
        guard (try? text.write(toFile: path, atomically: true, encoding: .utf8)) != nil else { return nil }
        return (path, text)
    }
}
