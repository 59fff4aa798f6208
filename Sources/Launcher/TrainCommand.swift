import ArgumentParser
import Checkpointing
import Configuration
import DistTrain
import Foundation
import Records
import Supervision
import Support

/// Options shared by all kinds of training.
struct TrainingOptions: ParsableArguments {
    @Option(help: ArgumentHelp("The configuration, YAML.", valueName: "file"))
    var config: String

    @Option(
        name: .customLong("set"), parsing: .singleValue,
        help: ArgumentHelp("Override a setting; may be given many times.", valueName: "a.b=value"))
    var overrides: [String] = []

    @Option(
        help: ArgumentHelp(
            """
            Where a run without checkpoints of its own starts: auto: from initial weights; none: the same, in an empty \
            folder; or the folder of a checkpoint or of another run. A run that has checkpoints resumes from its newest \
            whole one, so that the same command can be repeated.
            """, valueName: "auto|none|path"))
    var resume = "auto"

    @Option(
        help: ArgumentHelp(
            """
            Go back to the run's newest checkpoint before this step; later ones are set aside. Done once: repeating the \
            command then resumes from the newest checkpoint.
            """, valueName: "step"))
    var resumeBefore: Int?

    @Option(
        parsing: .singleValue,
        help: ArgumentHelp(
            """
            Resume although these keys, or all of a section, have changed since the checkpoint, which would be \
            refused; may be given many times. docs/resume.md lists the keys.
            """, valueName: "key,…"))
    var allowChange: [String] = []

    @Option(
        help: ArgumentHelp(
            """
            Start from the weights of this model: a diffusers folder or pipeline, a run, or a checkpoint (its slowest \
            average). Without a section 'model' its configuration is taken, too. A checkpoint that --resume finds goes \
            before.
            """, valueName: "folder"))
    var initFrom: String?

    @Option(help: ArgumentHelp("The run's folder. Default: runs/NAME.", valueName: "folder"))
    var output: String?

    @Option(
        help: ArgumentHelp(
            """
            Stop in time with a checkpoint, and exit code 75, for a job that may last so long: 50m, 3h50m, or Slurm's \
            1-02:00:00. Default: when Slurm ends the job, where it does.
            """, valueName: "time"))
    var timeLimit: String?

    @Option(
        help: ArgumentHelp(
            """
            End all ranks when one of them has not got on within a step for so long. Default: 20 s or five steps, \
            whichever is more; 15 s for a rank that is not heard at all.
            """, valueName: "time"))
    var collectiveTimeout: String?

    @Option(
        help: ArgumentHelp(
            """
            End all ranks when a phase that reads or writes files (opening data, loading, saving, samples, evaluation, \
            export) has made no progress for so long: a disk or file server that stalls for less is waited for. \
            Default: 10m.
            """, valueName: "time"))
    var storageTimeout: String?

    func validate() throws {
        _ = try seconds(timeLimit, "--time-limit")
        _ = try seconds(collectiveTimeout, "--collective-timeout")
        _ = try seconds(storageTimeout, "--storage-timeout")
    }

    var start: Resume { Resume(resume, before: resumeBefore) }

    var watching: Watching {
        Watching(
            collectiveTimeout: collectiveTimeout.flatMap(TimeSpan.seconds),
            storageTimeout: storageTimeout.flatMap(TimeSpan.seconds),
            timeLimit: timeLimit.flatMap(TimeSpan.seconds))
    }
}

/// Parses a time given by an option, in seconds.
///
/// - Throws: `ValidationError` if the text is not a time of at least 1 s.
func seconds(_ text: String?, _ option: String) throws -> Double? {
    guard let text else { return nil }
    guard let seconds = TimeSpan.seconds(text), seconds >= 1 else {
        throw ValidationError(
            "\(option) \(text): expected a time of 1 s or more, such as 90s, 50m, 3h50m or 1-02:00:00")
    }
    return seconds
}

struct TrainCommand: TrainingCommand {
    static let configuration = CommandConfiguration(
        commandName: "train", abstract: "Train a U-Net on latents, or on pixels.",
        discussion: """
            Runs bare on one process, or on as many ranks as mpirun, srun or `disttrain launch` start; the batch size \
            is the whole job's. Stopped runs resume from their last checkpoint when the same command is repeated, \
            on any number of ranks.

              disttrain train --config configs/tiny.yaml
              disttrain launch -n 2 -- train --config configs/quickstart.yaml --set train.steps=500
              disttrain train --config configs/tiny.yaml --init-from runs/other --output runs/tuned
              mpirun -np 16 --hostfile hosts disttrain train --config configs/celeba_hq_256.yaml

            SIGTERM, SIGINT (Ctrl-C) or SIGUSR1 to any rank: all ranks stop after the step, save, and end with exit code \
            75: run it again. A second Ctrl-C ends at once.

            The run's folder holds config.yaml, metrics.jsonl, loss.png, samples/, checkpoints/, and model/, a \
            diffusers pipeline of the averaged weights.
            """)

    @OptionGroup var options: TrainingOptions

    func run() throws {
        StopRequest.listen()
        let watching = options.watching
        try onAllRanks(watchedBy: watching.limits) { communicator, watcher in
            let configuration = try communicator.collectively("reading the configuration") {
                try Configuration.load(
                    path: options.config, overrides: options.overrides, initFrom: options.initFrom)
            }
            try DenoisingRun(
                configuration, output: options.output, resume: options.start,
                allowedChanges: AllowedChanges(options.allowChange), watching: watching
            ).train(communicator, watcher)
        }
    }

    func runFolder() throws -> String {
        try options.output
            ?? "runs/"
            + Configuration.load(
                path: options.config, overrides: options.overrides, initFrom: options.initFrom
            ).name
    }
}

/// A training command that a supervisor can restart.
protocol TrainingCommand: ParsableCommand {
    var options: TrainingOptions { get }
    /// The run's folder, from the command line or the configuration.
    func runFolder() throws -> String
}
