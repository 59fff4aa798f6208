import Checkpointing
import Foundation

/// A supervised training job: its command line and its run folder.
package struct TrainingJob {
    /// The executable and its arguments.
    package let program: [String]
    /// The run's folder.
    package let run: String
    /// The value of `--resume` on the command line. It is passed unchanged to every attempt: the run's own
    /// checkpoints take precedence over a path, and the path applies until there is one.
    package var resume = "auto"

    package init(program: [String], run: String, resume: String = "auto") {
        (self.program, self.run, self.resume) = (program, run, resume)
    }

    private var checkpoints: CheckpointFolder { RunFolder(run).checkpoints }

    /// The steps of the run's checkpoints, ascending.
    package var checkpointSteps: [Int] { (try? checkpoints.steps()) ?? [] }

    /// A description of where a new attempt begins.
    package func origin(_ start: RestartPolicy.Start = .newest) -> String {
        switch start {
        case .before(let step):
            let earlier = checkpointSteps.last { $0 < step }
            return
                "from the checkpoint of step \(earlier ?? 0), since the job failed twice after that of step \(step)"
        case .newest:
            if let step = checkpointSteps.last { return "from the checkpoint of step \(step)" }
            return ["auto", "none"].contains(resume) ? "from the beginning" : "from \(resume) (--resume)"
        }
    }

    /// Writes a file into the run's folder, with which hosts prove that they share it, and returns its path
    /// and contents. If the folder does not exist yet, because the ranks create it, its nearest existing
    /// ancestor is used.
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
