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
    @OptionGroup var configuration: ConfigurationOptions

    @Option(
        help: ArgumentHelp(
            """
            Where a run without its own checkpoints starts: auto (from initial weights), none (the same, but requires an \
            empty folder), or the folder of a checkpoint or of another run. A run that has checkpoints resumes from its \
            newest complete one, so the same command can be repeated.
            """, valueName: "auto|none|path"))
    var resume = "auto"

    @Option(
        help: ArgumentHelp(
            """
            Go back to the run's newest checkpoint before this step; later ones are set aside. This is done only once: \
            repeating the command resumes from the newest checkpoint.
            """, valueName: "step"))
    var resumeBefore: Int?

    @Option(
        parsing: .singleValue,
        help: ArgumentHelp(
            """
            Resume even if these keys, or any keys of a section, have changed since the checkpoint, which is refused \
            otherwise; can be repeated. docs/configuration.md lists the keys.
            """, valueName: "key,…"))
    var allowChange: [String] = []

    @Option(
        help: ArgumentHelp(
            """
            Start from the weights of this model: a diffusers folder or pipeline, a run, or a checkpoint (its slowest \
            average). If the configuration has no section 'model', that of this model is used. A checkpoint found by \
            --resume takes precedence.
            """, valueName: "folder"))
    var initFrom: String?

    @Option(help: ArgumentHelp("The run's folder. Default: runs/NAME.", valueName: "folder"))
    var output: String?

    @Option(
        help: ArgumentHelp(
            """
            Time limit, such as 50m, 3h50m or 1-02:00:00: the run stops before it expires, with a checkpoint and exit \
            code 75. Default: the time limit of the Slurm job, if any.
            """, valueName: "time"))
    var timeLimit: String?

    @Option(
        help: ArgumentHelp(
            """
            Abort the job if a rank makes no progress within a step for this long. Default: 20 s or the time of five \
            steps, whichever is longer; 15 s for a rank that sends no heartbeats.
            """, valueName: "time"))
    var collectiveTimeout: String?

    @Option(
        help: ArgumentHelp(
            """
            Abort the job if a phase that reads or writes files (opening data, loading, saving, samples, evaluation, \
            export) makes no progress for this long; shorter stalls of a disk or file server are tolerated. Default: 10m.
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
        commandName: "train", abstract: "Train a U-Net on latents or pixels.",
        discussion: """
            Runs as a single process, or on as many ranks as mpirun, srun or `disttrain launch` start; the batch size \
            is that of the whole job. A stopped run resumes from its last checkpoint when the same command is repeated, \
            on any number of ranks.

              disttrain train --config configs/tiny.yaml
              disttrain launch -n 2 -- train --config configs/quickstart.yaml --set train.steps=500
              disttrain train --config configs/tiny.yaml --init-from runs/other --output runs/tuned
              mpirun -np 16 --hostfile hosts disttrain train --config configs/celeba_hq_256.yaml

            On SIGTERM, SIGINT (Ctrl-C) or SIGUSR1 to any rank, all ranks stop after the current step, save a checkpoint \
            and exit with code 75; repeat the command to resume. A second Ctrl-C ends the job immediately.

            The run's folder contains config.yaml, metrics.jsonl, loss.png, samples/, checkpoints/, and model/, a \
            diffusers pipeline of the averaged weights.
            """)

    typealias Values = Configuration
    @OptionGroup var options: TrainingOptions
}

/// A training command that a supervisor can restart.
protocol TrainingCommand: ParsableCommand {
    associatedtype Values: TrainableConfiguration
    var options: TrainingOptions { get }
    /// The run's folder, from the command line or the configuration.
    func runFolder() throws -> String
}

extension TrainingCommand {
    private func load() throws -> Values {
        try options.configuration.load(initFrom: options.initFrom)
    }

    func run() throws {
        StopRequest.listen()
        let watching = options.watching
        try onAllRanks(watchedBy: watching.limits) { communicator, watcher in
            try TrainingProgram(
                communicator.collectively("reading the configuration", load), output: options.output,
                resume: options.start, allowedChanges: AllowedChanges(options.allowChange), watching: watching
            ).train(communicator, watcher)
        }
    }

    func runFolder() throws -> String { try options.output ?? "runs/" + load().name }
}
