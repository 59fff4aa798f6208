import ArgumentParser
import Configuration
import Datasets
import Foundation
import Imaging
import Records
import Support

/// `disttrain prepare`: converts images into sharded training samples, on any number of ranks.
struct PrepareCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "prepare",
        abstract: "Turn images into sharded training samples: latents of a first stage, or pixels.",
        discussion: """
            Every image is cropped to its middle square and resized without aliasing. With --first-stage it is \
            encoded, and training draws from the posterior that is stored; without, its pixels are stored.

              disttrain prepare photos/ --output data/photos_256 --size 256 --first-stage models/vae --flip
              disttrain prepare cifar-10-batches-bin/ --output data/cifar10 --size 32
              mpirun -np 8 disttrain prepare celeba.tar --output data/celeba --size 256 --first-stage models/vae

            An interrupted run resumes where it stopped when the same command is repeated, on any number \
            of ranks. The folder holds manifest.json, the shards, and preview.png with the first images.
            """)

    @Argument(
        help: ArgumentHelp(
            """
            Folder or tar archive of PNG and JPEG files, folder of CIFAR-10 batches, or \
            synthetic-faces:COUNT[:SEED].
            """, valueName: "source"))
    var source: String

    @Option(help: ArgumentHelp("Folder to write; made where it is not there.", valueName: "folder"))
    var output: String

    @Option(help: ArgumentHelp("Side of the square images in pixels.", valueName: "pixels"))
    var size: Int

    @Option(
        help: ArgumentHelp(
            "Diffusers folder of an AutoencoderKL or VQModel. Default: none, pixels are stored.",
            valueName: "folder"))
    var firstStage: String?

    @Flag(help: "Store latents of the mirrored images too, which costs twice the time and space.")
    var flip = false

    @Option(help: "Resizing: lanczos (sharper) or area (plain averages).")
    var filter = ResizeFilter.lanczos

    @Flag(help: "Leave out images that cannot be read, and list them, rather than failing.")
    var skipBad = false

    @Option(
        help: ArgumentHelp(
            "Largest image that is read, in millions of pixels. Default: 134.", valueName: "megapixels"))
    var maxMegapixels: Int?

    @Option(help: ArgumentHelp("Images that are encoded together.", valueName: "images"))
    var batch = 8

    @Option(help: ArgumentHelp("Take the first images alone.", valueName: "images"))
    var limit: Int?

    @Option(
        help: "Type the first stage computes in: auto (bf16 where the processor multiplies it), fp32, bf16.")
    var precision = PrepareOptions.Precision.auto

    func validate() throws { try checkMegapixels(maxMegapixels) }

    func run() throws {
        var options = PrepareOptions(source: source, output: output, size: size)
        options.filter = filter
        options.firstStage = firstStage
        options.flip = flip
        options.skipBad = skipBad
        options.limits = ImageLimits(megapixels: maxMegapixels)
        options.batch = batch
        options.limit = limit
        options.precision = precision
        let status = runOnAllRanks(watchedBy: WatchLimits()) { communicator, watcher in
            watcher.activity.enter(.work)
            let summary = try prepare(options, on: communicator)
            if communicator.isRoot { print(summary.text(output: options.output)) }
        }
        if status != ExitStatus.success { throw ExitCode(status) }
    }
}

/// Rejects a `--max-megapixels` outside the supported range.
func checkMegapixels(_ megapixels: Int?) throws {
    if let megapixels, !ImageLimits.megapixels.contains(megapixels) {
        throw ValidationError(
            "--max-megapixels \(megapixels): expected \(ImageLimits.megapixels.lowerBound) to "
                + "\(ImageLimits.megapixels.upperBound)")
    }
}

extension ResizeFilter: ExpressibleByArgument {}
extension PrepareOptions.Precision: ExpressibleByArgument {}
