import ArgumentParser
import Checkpointing
import Communication
import Configuration
import DistTrain
import Foundation
import Supervision
import Support

struct VerifyResumeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify-resume",
        abstract: "Verify on this machine that a killed run resumes as if it had not been killed.",
        discussion: """
            Trains a few steps of your configuration five times, on the ranks of this machine:

              1. an undisturbed run, on --ranks;
              2. the same run, all of its processes killed (SIGKILL) between two checkpoints;
              3. the killed run, resumed on the same number of ranks: weights, moments, averages and metrics.jsonl must \
            be bitwise identical to those of the first run;
              4. its checkpoint, loaded on --resume-ranks and saved again immediately: must be bitwise identical;
              5. the killed run, resumed on --resume-ranks: the loss of its first step must match the first run's to \
            1e-5, since only the order of sums differs. The distance of the final weights is reported.

              disttrain verify-resume --config configs/tiny.yaml
              disttrain verify-resume --config configs/celeba_hq_256.yaml --set train.batch_size=12 --ranks 4 \
            --resume-ranks 3 --steps 8

            The learning-rate schedule is that of a run of --steps. The disk must have space for four checkpoints of \
            your model. The runs are removed if all checks pass; otherwise, and with --output, they are kept.

            Exit code 0: all checks passed. 3: a check failed, or a checkpoint is damaged. Otherwise that of the run that \
            failed.
            """)

    @OptionGroup var source: ConfigurationOptions
    @Option(help: ArgumentHelp("Ranks of the runs that must be bitwise identical.", valueName: "n"))
    var ranks = 2
    @Option(
        help: ArgumentHelp("Different number of ranks on which to resume the killed run.", valueName: "n"))
    var resumeRanks = 3
    @Option(help: ArgumentHelp("Steps of the complete run.", valueName: "n"))
    var steps = 20
    @Option(
        help: ArgumentHelp(
            "Kill after this step. Default: halfway, after a checkpoint.", valueName: "step"))
    var killAt: Int?
    @Option(
        help: ArgumentHelp(
            "New or empty folder for the runs. Default: a temporary folder in runs/.", valueName: "folder"))
    var output: String?

    private var plan: VerifyResumePlan {
        VerifyResumePlan(
            steps: steps, killAt: killAt ?? VerifyResumePlan.killStep(steps: steps), ranks: ranks,
            resumeRanks: resumeRanks)
    }

    func validate() throws {
        for (name, count) in [("--ranks", ranks), ("--resume-ranks", resumeRanks)] where count < 1 {
            throw ValidationError("\(name) \(count): expected 1 or more")
        }
        guard steps >= VerifyResumePlan.fewestSteps else {
            throw ValidationError("--steps \(steps): expected \(VerifyResumePlan.fewestSteps) or more")
        }
        guard let killAt else { return }
        guard (VerifyResumePlan.firstKill..<steps).contains(killAt) else {
            throw ValidationError(
                "--kill-at \(killAt): expected \(VerifyResumePlan.firstKill) to \(steps - 1), before the last step"
            )
        }
    }

    func run() throws {
        do {
            try verify()
        } catch {
            let report = FailureReport(error)
            throw LaunchError(report.message, exitStatus: report.exitStatus)
        }
    }

    private func verify() throws {
        let environment = ProcessInfo.processInfo.environment
        guard try LaunchEnvironment(environment) == .alone else {
            throw LaunchError(
                "verify-resume starts mpirun itself, but this process is already a rank of an MPI job; run it directly"
            )
        }
        // Validate the configuration here, so that errors are reported once instead of by every run.
        let configuration = try source.load(Configuration.self)
        var plan = plan
        plan.warmupSteps = configuration.optimizer.warmupSteps
        _ = try source.load(Configuration.self, more: plan.settings)
        let (batch, most) = (configuration.train.batchSize, max(ranks, resumeRanks))
        guard batch >= most else {
            throw LaunchError(
                "train.batch_size is \(batch), expected at least one sample for each of \(most) ranks; raise it, or "
                    + "reduce --ranks and --resume-ranks")
        }
        let folder = try VerifyResumeFolder(output, name: configuration.name)
        do {
            let failed = try prove(plan, in: folder.path)
            guard failed.isEmpty else {
                throw LaunchError(
                    "\(folder.path): \(failed.count) of the comparisons failed, first '\(failed[0])'; the runs are kept, "
                        + "see `disttrain checkpoint diff`", exitStatus: ExitStatus.refused)
            }
        } catch let error as Interruption {
            folder.removeUnlessNamed()
            throw error
        }
        folder.removeUnlessNamed()
        print("Passed: a killed run resumes as if it had not been killed.")
    }

    /// - Returns: descriptions of the differences.
    private func prove(_ plan: VerifyResumePlan, in folder: String) throws -> [String] {
        let runs = try VerifyResumeRuns(
            plan, options: source.arguments, folder: folder,
            trap: SignalTrap())
        var failed: [String] = []
        func show(_ title: String, _ checks: [ResumeProof.Check]) throws {
            try runs.checkInterruption()
            print(title)
            for line in ResumeProof.table(checks) { print(line) }
            fflush(nil)
            failed += checks.filter { $0.hasPassed == false }.map { "\(title): \($0.subject): \($0.finding)" }
        }

        try runs.train("undisturbed", "undisturbed", ranks: ranks)
        let proof = try ResumeProof(undisturbed: runs.path("undisturbed"), steps: steps)
        let (saved, reached) = try runs.trainAndKill("to be killed", "killed", ranks: ranks)
        // The killed run resumes twice, so copy it.
        try FileManager.default.copyItem(atPath: runs.path("killed"), toPath: runs.path("killed_copy"))
        let checkpoint = RunFolder(runs.path("killed_copy")).checkpoints.path(step: saved)
        print("killed during step \(reached + 1) of \(steps); the newest checkpoint is of step \(saved)")

        try runs.train("resumes", "killed", ranks: ranks, first: saved)
        try show(
            "\(ranks) → \(ranks) ranks, compared with the undisturbed run",
            try proof.sameRanks(runs.path("killed"), from: saved))
        try runs.load("loads", "loaded", ranks: resumeRanks, from: checkpoint, of: saved)
        try show(
            "\(ranks) → \(resumeRanks) ranks, loaded and saved again",
            try proof.stateLoaded(from: checkpoint, savedAgain: runs.path("loaded")))
        try runs.train("its copy resumes", "killed_copy", ranks: resumeRanks, first: saved)
        try show(
            "\(ranks) → \(resumeRanks) ranks, compared with the undisturbed run",
            try proof.otherRanks(runs.path("killed_copy"), from: saved))
        return failed
    }
}
