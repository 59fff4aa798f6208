import Checkpointing
import Foundation

/// A training that is supervised: its command line and its run's folder.
package struct TrainingJob {
    /// The program and its arguments.
    package let program: [String]
    /// The run's folder.
    package let run: String
    /// What the command line says of `--resume`. It is passed on unchanged at every start: the run's own checkpoints take
    /// precedence over a path, and until there is one the path applies.
    package var resume = "auto"

    package init(program: [String], run: String, resume: String = "auto") {
        self.program = program
        self.run = run
        self.resume = resume
    }

    private var checkpoints: CheckpointFolder { RunFolder(run).checkpoints }

    /// Ascending.
    package var checkpointSteps: [Int] { (try? checkpoints.steps()) ?? [] }

    /// What a new start begins from.
    package func origin(_ start: RestartPolicy.Start = .newest) -> String {
        switch start {
        case .before(let step):
            let earlier = checkpointSteps.last { $0 < step }
            return
                "from the checkpoint of step \(earlier ?? 0), since it failed twice after that of step \(step)"
        case .newest:
            if let step = checkpointSteps.last { return "from the checkpoint of step \(step)" }
            return ["auto", "none"].contains(resume) ? "from the beginning" : "from \(resume) (--resume)"
        }
    }

    /// A file in the run's folder by which hosts prove that they share it, and what it says. A folder that does not exist
    /// yet is made by the ranks: its nearest parent stands for it.
    package func marker() -> (path: String, text: String)? {
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
