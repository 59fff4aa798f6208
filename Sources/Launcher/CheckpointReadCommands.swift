import ArgumentParser
import Checkpointing
import Foundation

// Commands that read checkpoints without modifying them.

struct CheckpointListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list", abstract: "List a run's checkpoints.",
        discussion: """
            Prints one line per checkpoint, by step: when it was saved, its size, the number of ranks that wrote it, \
            the metric used by keep_best, and whether all files are present with their full size. This quickly detects \
            missing and truncated files; `verify` also detects changed bytes.

              disttrain checkpoint list runs/faces
            """)

    @Argument(help: ArgumentHelp("A run's folder, or its checkpoints/ folder.", valueName: "run"))
    var folder: String

    func run() throws {
        for line in try CheckpointList(run: folder).lines() { print(line) }
    }
}

struct CheckpointInspectCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect", abstract: "Describe a checkpoint.",
        discussion: """
            Prints run, step, when and by what it was saved, model, data, and the size of each folder. With --json, \
            prints the manifest, which contains everything: configuration, tensor table, files with sizes and \
            checksums. docs/checkpoint-format.md describes it.

              disttrain checkpoint inspect runs/faces
              disttrain checkpoint inspect runs/faces/checkpoints/step-00015000 --json | jq .configuration -r
            """)

    @Argument(
        help: ArgumentHelp("A checkpoint, or a run (its newest checkpoint is used).", valueName: "checkpoint")
    )
    var checkpoint: String
    @Flag(help: "Print the manifest as JSON.")
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
        commandName: "verify", abstract: "Read every byte of checkpoints and verify the checksums.",
        discussion: """
            Reports each file and tensor that is damaged, missing or truncated, and exits with code 3 if there is any. \
            For a run, all checkpoints are verified, oldest first.

              disttrain checkpoint verify runs/faces
              disttrain checkpoint verify runs/faces/checkpoints/step-00015000
            """)

    @Argument(help: ArgumentHelp("A run or a checkpoint.", valueName: "folder"))
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
        commandName: "diff", abstract: "Show the differences between two checkpoints.",
        discussion: """
            Compares the configuration key by key. For each folder, reports how many tensors are bitwise identical, \
            how much the others differ (largest |B − A| of an element, and relative ‖B − A‖ / ‖A‖), which are missing \
            or have a different shape, and which differ most. The exit code is 0 whether they differ or not, and 3 if \
            data does not match its checksums.

              disttrain checkpoint diff runs/faces/checkpoints/step-00014000 runs/faces/checkpoints/step-00015000
              disttrain checkpoint diff runs/faces runs/resumed --tensors 20
            """)

    @Argument(help: ArgumentHelp("A checkpoint, or a run (its newest checkpoint is used).", valueName: "a"))
    var first: String
    @Argument(help: ArgumentHelp("The checkpoint or run to compare it with.", valueName: "b"))
    var second: String
    @Option(
        help: ArgumentHelp("Number of the most different tensors to list for each folder.", valueName: "n"))
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
