import ArgumentParser
import Checkpointing
import Support

// Commands that create or delete checkpoints.

struct CheckpointReshardCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "reshard", abstract: "Rewrite a checkpoint for a different number of ranks.",
        discussion: """
            The tensors and the manifest stay the same, but each folder has one file per rank. Checksums are verified \
            while copying, and the new checkpoint appears completely or not at all. Resuming does not need this, since \
            a run resumes on any number of ranks; other readers may prefer fewer or smaller files.

              disttrain checkpoint reshard runs/faces --ranks 1 --output runs/faces_1/checkpoints
            """)

    @Argument(
        help: ArgumentHelp("A checkpoint, or a run (its newest checkpoint is used).", valueName: "checkpoint")
    )
    var checkpoint: String
    @Option(help: ArgumentHelp("Number of ranks.", valueName: "n"))
    var ranks: Int
    @Option(help: ArgumentHelp("Folder for the new step-… folder; created if missing.", valueName: "folder"))
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
        commandName: "prune", abstract: "Delete old checkpoints.",
        discussion: """
            Keeps the same checkpoints as a run with these settings: the newest, those at multiples of a step, and \
            those with the lowest metric. Only complete checkpoints count, so a damaged one never displaces a good one. \
            Use --dry-run first, because deletion cannot be undone. A run that is being trained is refused: it deletes \
            its own checkpoints, according to checkpoint.keep_last, keep_every and keep_best.

              disttrain checkpoint prune runs/faces --keep-last 3 --keep-every 50000 --dry-run
            """)

    @Argument(help: ArgumentHelp("A run's folder, or its checkpoints/ folder.", valueName: "run"))
    var folder: String
    @Option(help: ArgumentHelp("Number of newest checkpoints to keep.", valueName: "n"))
    var keepLast: Int
    @Option(help: ArgumentHelp("Also keep all checkpoints at multiples of this step.", valueName: "step"))
    var keepEvery: Int?
    @Option(help: ArgumentHelp("Also keep the N best checkpoints by metric.", valueName: "n"))
    var keepBest = 0
    @Flag(help: "Print what would be deleted, without deleting it.")
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
        print("\(count - expired.count) of \(count) checkpoints \(dryRun ? "would be kept" : "kept")")
    }
}

struct CheckpointCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "checkpoint", abstract: "Inspect, verify, convert and delete checkpoints.",
        discussion: """
            A checkpoint is a folder such as runs/faces/checkpoints/step-00015000. Its subfolders contain complete, named \
            tensors: unet/ (or vae/) the weights, ema-0.9999/ an average of them, exp_avg/ and exp_avg_sq/ the optimizer's \
            moments. manifest.json, written last, contains the size and checksum of every file and tensor.

              disttrain checkpoint list runs/faces                 list checkpoints and check that they are complete
              disttrain checkpoint verify runs/faces               verify every byte
              disttrain checkpoint diff runs/faces runs/other      show differences

            Wherever a checkpoint is expected, a run stands for its newest one. Only export needs MPI; the other commands \
            run anywhere, and their memory use does not grow with the model size. Exit code 3: the checkpoint is missing \
            or damaged.
            """,
        subcommands: [
            CheckpointListCommand.self, CheckpointInspectCommand.self, CheckpointVerifyCommand.self,
            CheckpointDiffCommand.self, CheckpointReshardCommand.self, CheckpointPruneCommand.self,
            CheckpointExportCommand.self,
        ])
}
