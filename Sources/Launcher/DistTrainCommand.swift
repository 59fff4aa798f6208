import ArgumentParser
import Communication

@main struct DistTrainCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "disttrain",
        abstract: "Train latent diffusion models on the computers you have.",
        discussion: """
            From images to samples:

              disttrain vae train --config configs/vae_quickstart.yaml --output runs/vae
              disttrain prepare photos/ --size 64 --first-stage runs/vae/model --output data/photos
              disttrain train --config configs/quickstart.yaml --output runs/photos
              disttrain sample --model runs/photos --count 64 --output samples

            Run any command directly, under mpirun or srun, or as `disttrain launch -n 4 -- COMMAND` on 4 ranks of \
            this machine.
            """,
        version: Program.version,
        subcommands: [
            TrainCommand.self, VAECommand.self, ConfigCommand.self, PrepareCommand.self, SampleCommand.self,
            EvaluateCommand.self,
            CheckpointCommand.self, ConvertCommand.self, VerifyResumeCommand.self, LaunchCommand.self,
            StatusCommand.self,
            ReportCommand.self,
            PlanCommand.self, DoctorCommand.self,
            HostReportCommand.self, LinkReportCommand.self, LaunchGuardCommand.self,
            BenchCommand.self,
            SelfTestCommand.self,
        ])

    static func main() { runAndExit() }
}
