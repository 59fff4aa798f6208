import ArgumentParser

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
