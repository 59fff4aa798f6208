import ArgumentParser
import Checkpointing
import Foundation

// Commands that read checkpoints without modifying them.

struct CheckpointListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list", abstract: "List a run's checkpoints.",
        discussion: """
            One line a checkpoint, by step: when it was saved, its size, the ranks that wrote it, the metric that \
            keep_best goes by, and whether every file is there in full length. That finds what is missing or cut short at \
            once; `verify` also finds changed bytes.

              disttrain checkpoint list runs/faces
            """)

    @Argument(help: ArgumentHelp("A run's folder, or its checkpoints folder.", valueName: "run"))
    var folder: String

    func run() throws {
        for line in try CheckpointList(run: folder).lines() { print(line) }
    }
}

struct CheckpointInspectCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect", abstract: "Tell what a checkpoint is.",
        discussion: """
            Run, step, who saved it when, model, data, and the size of each folder. With --json the manifest, which has \
            everything: configuration, table of tensors, files with sizes and checksums. docs/checkpoint-format.md \
            describes it.

              disttrain checkpoint inspect runs/faces
              disttrain checkpoint inspect runs/faces/checkpoints/step-00015000 --json | jq .configuration -r
            """)

    @Argument(help: ArgumentHelp("A checkpoint, or a run for its newest.", valueName: "checkpoint"))
    var checkpoint: String
    @Flag(help: "Print the manifest, JSON.")
    var json = false

    func run() throws {
        let summary = try CheckpointSummary(of: checkpoint)
        if json {
            print(try summary.json(), terminator: "")
        } else {
            for line in summary.lines() { print(line) }
        }
    }
}

struct CheckpointVerifyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify", abstract: "Read every byte of checkpoints and compare checksums.",
        discussion: """
            Names each file and tensor that is damaged, missing or cut short, and ends with code 3 if there is any. Of a \
            run, all checkpoints are read, oldest first.

              disttrain checkpoint verify runs/faces
              disttrain checkpoint verify runs/faces/checkpoints/step-00015000
            """)

    @Argument(help: ArgumentHelp("A run, or a checkpoint.", valueName: "folder"))
    var folder: String

    func run() throws {
        try CheckpointAudit(of: folder).run { line in
            print(line)
            fflush(nil)
        }
    }
}

struct CheckpointDiffCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "diff", abstract: "Tell what differs between two checkpoints.",
        discussion: """
            The configuration key by key; then for each folder how many tensors are the same to the bit, how far the \
            others are apart (largest |B − A| of an element, and relative ‖B − A‖ / ‖A‖), which are missing or of another \
            shape, and which differ most. The code is 0 whether they differ or not, 3 where bytes do not agree with their \
            checksums.

              disttrain checkpoint diff runs/faces/checkpoints/step-00014000 runs/faces/checkpoints/step-00015000
              disttrain checkpoint diff runs/faces runs/resumed --tensors 20
            """)

    @Argument(help: ArgumentHelp("A checkpoint, or a run for its newest.", valueName: "a"))
    var first: String
    @Argument(help: ArgumentHelp("Another.", valueName: "b"))
    var second: String
    @Option(help: ArgumentHelp("Name so many of the most different tensors of each folder.", valueName: "n"))
    var tensors = 5

    func validate() throws {
        guard tensors >= 0 else { throw ValidationError("--tensors \(tensors): expected 0 or more") }
    }

    func run() throws {
        try CheckpointComparison(first, second, listed: tensors).run { line in
            print(line)
            fflush(nil)
        }
    }
}
