import ArgumentParser
import LDMModel
import Planning

struct BenchVAECommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "vae",
        abstract: "Time a first stage that encodes images and decodes latents.",
        discussion: """
            An AutoencoderKL with random weights, on random data; each rank takes its own batch:

              disttrain bench vae --vae configs/sd_vae_ft_mse.json --size 256 --precision bf16 --batch 4 --threads 2

            Prints two reports, encoding first.
            """)

    @Option(help: "An AutoencoderKL config.json, or the .yaml of `vae train`.", completion: .file())
    var vae: String
    @Option(
        help: ArgumentHelp("Side of the images; by default the model's sample_size.", valueName: "pixels"))
    var size: Int?
    @OptionGroup var options: BenchOptions
    @Option(help: "Timed passes of the batch each way, after one that is not.")
    var passes = 3

    func validate() throws {
        guard passes >= 1 else { throw ValidationError("--passes \(passes): expected 1 or more") }
        guard size ?? 1 >= 1 else { throw ValidationError("--size \(size!): expected 1 or more") }
    }

    func run() throws {
        try options.run(self) { communicator, dtype, backend in
            let vae = try BenchModel.autoencoder(vae)
            let benchmark = VAEBenchmark(
                vae: vae, size: size.map { SpatialSize($0) } ?? vae.sampleSize, dtype: dtype,
                backend: backend,
                batch: options.batch, passes: passes)
            return try benchmark.run(communicator)
        }
    }
}
