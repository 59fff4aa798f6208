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
        abstract: "Convert images to sharded training samples: latents of a first stage, or pixels.",
        discussion: """
            Crops every image to its center square and resizes it with antialiasing. With --first-stage, images are \
            encoded and their posteriors are stored, from which training draws samples; without it, pixels are stored.

              disttrain prepare photos/ --output data/photos_256 --size 256 --first-stage models/vae --flip
              disttrain prepare cifar-10-python.tar.gz --output data/cifar10 --size 32
              disttrain prepare scans/ --output data/scans --size 128 --channels 1
              disttrain prepare CelebAMask-HQ.zip/CelebAMask-HQ/CelebA-HQ-img --output data/celeba --size 256
              mpirun -np 8 disttrain prepare 'shards/{000..127}.tar' --output data/wds --size 256
              python3 export.py | disttrain prepare - --output data/exported --size 256

            Class labels come from CIFAR's batches, arrays of labels (arr_1 of an .npz file), .cls files next to the \
            images, dataset.json, or the names of folders, or from a table with --labels (docs/data.md).

            An interrupted run resumes where it stopped when the same command is repeated, on any number of ranks. \
            The output folder contains manifest.json, the shards, and preview.png with the first images.
            """)

    @Argument(
        help: ArgumentHelp(
            """
            Folder or archive (tar, zip) of PNG, JPEG and WebP files, folder or pattern of archives, .npy or .npz arrays, \
            CIFAR-10 or CIFAR-100, - for a tar archive from standard input, or synthetic-faces:COUNT[:SEED].
            """, valueName: "source"))
    var source: String

    @Option(help: ArgumentHelp("Output folder; created if missing.", valueName: "folder"))
    var output: String

    @Option(help: ArgumentHelp("Width and height of the images in pixels.", valueName: "pixels"))
    var size: Int

    @Option(
        help: ArgumentHelp(
            """
            3, or 1 for grayscale: colors become luma (ITU-R BT.601). Default: the channels of the first stage's \
            images, or 3.
            """, valueName: "channels"))
    var channels: Int?

    @Option(
        help: ArgumentHelp(
            "Folder of a diffusers AutoencoderKL or VQModel. Default: none, pixels are stored.",
            valueName: "folder"))
    var firstStage: String?

    @Flag(help: "Also store latents of the mirrored images, which doubles time and space.")
    var flip = false

    @Option(help: "Resampling filter: lanczos (sharper) or area (plain averages).")
    var filter = ResizeFilter.lanczos

    @OptionGroup var images: ImageReadingOptions

    @Option(
        help: ArgumentHelp(
            """
            CSV file with the class of each image, in rows of file name and class, or `none` to store no labels. \
            Default: the labels of the source.
            """, valueName: "file"))
    var labels: String?

    @Option(help: ArgumentHelp("Number of images to encode at once.", valueName: "images"))
    var batch = 8

    @Option(help: ArgumentHelp("Use only this number of images, the first ones.", valueName: "images"))
    var limit: Int?

    @Option(
        help:
            "Compute type of the first stage: fp32, bf16, or auto (bf16 if the processor supports it natively)."
    )
    var precision = PrepareOptions.Precision.auto

    func run() throws {
        var options = PrepareOptions(source: source, output: output, size: size)
        options.filter = filter
        options.channels = channels
        options.firstStage = firstStage
        options.flip = flip
        options.skipBad = images.skipBad
        options.limits = images.limits
        options.batch = batch
        options.limit = limit
        options.precision = precision
        options.labels = LabelChoice(labels)
        let status = runOnAllRanks(watchedBy: WatchLimits()) { communicator, watcher in
            watcher.activity.enter(.work)
            let summary = try prepare(options, on: communicator)
            if communicator.isRoot { print(summary.text(output: options.output)) }
        }
        if status != ExitStatus.success { throw ExitCode(status) }
    }
}

extension ResizeFilter: ExpressibleByArgument {}
extension PrepareOptions.Precision: ExpressibleByArgument {}
