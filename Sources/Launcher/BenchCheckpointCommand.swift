import ArgumentParser
import Communication
import Foundation
import Planning

struct BenchCheckpointCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "checkpoint",
        abstract: "Time saves of a U-Net's training state while it trains.",
        discussion: """
            Trains on random data, saves meanwhile and with nothing beside it, writes as many bytes plainly, and loads:

              disttrain launch -n 2 --threads 1 -- bench checkpoint --unet configs/unet_70m.json --folder runs
              disttrain launch -n 3 --threads 1 -- bench checkpoint --unet configs/unet_70m.json --saved-by 2

            All times include fsync where something is written, and the comparison with checksums where something is \
            read, which is in the page cache. Deleting an older checkpoint counts while training goes on, and not \
            with nothing beside it. What is written in the folder is removed again.
            """)

    @Option(help: "A UNet2DModel config.json, or a run's .yaml.", completion: .file())
    var unet: String
    @Option(help: "An existing folder on the disk to measure.", completion: .directory)
    var folder = "."
    @OptionGroup var options: BenchOptions
    @Option(help: "Steps whose median is the step's time.")
    var steps = 3
    @Option(help: "Saves and loads with nothing beside them, whose medians are told.")
    var repeats = 3
    @Option(help: "Also load the checkpoint as so many ranks would have written it.")
    var savedBy: Int?
    @Option(help: "Decay of an exponential moving average, which is saved too.")
    var ema: Double?
    @Option(help: "optimizer: each rank keeps its slice of the training state; none: all of it.")
    var sharding = Sharding.optimizer

    func validate() throws {
        for (name, count) in [("--steps", steps), ("--repeats", repeats), ("--saved-by", savedBy ?? 1)]
        where count < 1 { throw ValidationError("\(name) \(count): expected 1 or more") }
    }

    func run() throws {
        let (dtype, backend) = (try ComputeType.dtype(named: options.precision), try options.chosenBackend())
        try options.onAllRanks(self) { communicator in
            let benchmark = CheckpointBenchmark(
                step: StepBenchmark(
                    unet: try BenchModel.unet(unet), dtype: dtype, backend: backend, batch: options.batch,
                    steps: steps, averageDecay: ema, sharding: sharding),
                folder: folder, repeats: repeats, savedBy: savedBy)
            let result = try benchmark.run(communicator)
            if communicator.isRoot { print(options.json ? result.json : result.table) }
        }
    }
}
