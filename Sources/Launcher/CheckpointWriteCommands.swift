import ArgumentParser
import Checkpointing
import Support

// Commands that create or delete checkpoints.

struct CheckpointReshardCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "reshard", abstract: "Write a checkpoint as another number of ranks would have.",
        discussion: """
            Same tensors, same manifest, other files: one a rank in each folder. Every byte is compared with its checksum \
            on the way, and the new checkpoint appears whole or not at all. A run does not need it, since it resumes on \
            any number of ranks; other readers may like fewer or smaller files.

              disttrain checkpoint reshard runs/faces --ranks 1 --output runs/faces_1/checkpoints
            """)

    @Argument(help: ArgumentHelp("A checkpoint, or a run for its newest.", valueName: "checkpoint"))
    var checkpoint: String
    @Option(help: ArgumentHelp("Ranks to write as.", valueName: "n"))
    var ranks: Int
    @Option(help: ArgumentHelp("Folder to put step-… in; made where it is not there.", valueName: "folder"))
    var output: String

    func validate() throws {
        guard (1...1 << 16).contains(ranks) else {
            throw ValidationError("--ranks \(ranks): expected 1 to \(1 << 16)")
        }
    }

    func run() throws {
        let reshard = try CheckpointReshard(of: checkpoint, ranks: ranks, output: output)
        print("Wrote \(try reshard.run { Console.error.write("Note: \($0)\n") })")
    }
}

struct CheckpointPruneCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "prune", abstract: "Delete checkpoints that need not be kept.",
        discussion: """
            Keeps what a run with these settings would: the newest, those at multiples of a step, those of the lowest \
            metric. Only whole checkpoints count as kept, so a damaged one never costs a good one its place. Try it with \
            --dry-run first; nothing brings a deleted checkpoint back. A run that is being trained is refused: it deletes \
            its own, by checkpoint.keep_last and its fellows.

              disttrain checkpoint prune runs/faces --keep-last 3 --keep-every 50000 --dry-run
            """)

    @Argument(help: ArgumentHelp("A run's folder, or its checkpoints folder.", valueName: "run"))
    var folder: String
    @Option(help: ArgumentHelp("Keep so many of the newest.", valueName: "n"))
    var keepLast: Int
    @Option(help: ArgumentHelp("Keep all at multiples of this step.", valueName: "step"))
    var keepEvery: Int?
    @Option(help: ArgumentHelp("Keep so many of the lowest metric.", valueName: "n"))
    var keepBest = 0
    @Flag(help: "Only print what would be deleted.")
    var dryRun = false

    func validate() throws {
        guard keepLast >= 1 else { throw ValidationError("--keep-last \(keepLast): expected 1 or more") }
        if let keepEvery, keepEvery < 1 {
            throw ValidationError("--keep-every \(keepEvery): expected 1 or more")
        }
        guard keepBest >= 0 else { throw ValidationError("--keep-best \(keepBest): expected 0 or more") }
    }

    func run() throws {
        let pruning = try CheckpointPruning(
            run: folder, Retention(keepLast: keepLast, keepEvery: keepEvery ?? 0, keepBest: keepBest))
        let (expired, count) =
            dryRun
            ? try pruning.preview() : try pruning.run { Console.error.write("Note: \($0)\n") }
        for step in expired {
            print("\(dryRun ? "would delete" : "deleted") \(pruning.folder.path(step: step))")
        }
        print("\(count - expired.count) of \(count) checkpoints \(dryRun ? "would stay" : "stay")")
    }
}

struct CheckpointCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "checkpoint", abstract: "Work with the checkpoints of a run.",
        discussion: """
            A checkpoint is a folder such as runs/faces/checkpoints/step-00015000. Its folders hold whole, named tensors: \
            unet/ (or vae/) the weights, ema-0.9999/ an average of them, exp_avg/ and exp_avg_sq/ the optimizer's \
            moments. manifest.json, written last, has the size and the checksum of every file and tensor.

              disttrain checkpoint list runs/faces                 what is there, and is it whole?
              disttrain checkpoint verify runs/faces               read every byte
              disttrain checkpoint diff runs/faces runs/other      what differs?

            Where a checkpoint is asked for, a run stands for its newest. Only export needs MPI; the others run anywhere, \
            in memory that does not grow with the model. Exit code 3: there is no checkpoint, or it is damaged.
            """,
        subcommands: [
            CheckpointListCommand.self, CheckpointInspectCommand.self, CheckpointVerifyCommand.self,
            CheckpointDiffCommand.self, CheckpointReshardCommand.self, CheckpointPruneCommand.self,
            CheckpointExportCommand.self,
        ])
}
