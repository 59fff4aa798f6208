import ArgumentParser
import Planning

struct BenchSampleCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sample",
        abstract: "Time evaluations of a U-Net as sampling makes them.",
        discussion: """
            Forward passes alone, on random data; each rank takes its own batch:

              disttrain bench sample --unet configs/unet_70m.json --precision bf16 --batch 16 --threads 2

            Images a second are evaluations a second. A sample of 50 denoising steps takes 50 of them.
            """)

    @Option(help: "A UNet2DModel config.json, or a run's .yaml.", completion: .file())
    var unet: String
    @OptionGroup var options: BenchOptions
    @Option(help: "Timed evaluations of the batch, after one that is not.")
    var evaluations = 5

    func validate() throws {
        guard evaluations >= 1 else {
            throw ValidationError("--evaluations \(evaluations): expected 1 or more")
        }
    }

    func run() throws {
        try options.run(self) { communicator, dtype, backend in
            let benchmark = SampleBenchmark(
                unet: try BenchModel.unet(unet), dtype: dtype, backend: backend, batch: options.batch,
                evaluations: evaluations)
            return [try benchmark.run(communicator)]
        }
    }
}
