import Communication
import Foundation
import Imaging
import LDMModel
import Support
import TensorCore

/// The training data, from the `data` section of a run's configuration.
package struct DataOptions: Equatable, Sendable {
    /// A folder written by `prepare`; in pixel space, alternatively a source as in
    /// ``openImageSource(_:size:seed:skipBad:limits:)``, or `synthetic-faces:COUNT:SEED`.
    package var path: String
    /// Side of a training image, to which the source's images are resized when they are loaded.
    package var imageSize: Int
    package var filter: ResizeFilter
    /// Channels of a training image, 3 or 1; nil for those of a prepared folder, or 3.
    package var channels: Int?
    /// Whether the labels of images are read. A prepared folder always has its labels.
    package var needsLabels = false

    package init(
        path: String, imageSize: Int, filter: ResizeFilter = .lanczos, channels: Int? = nil
    ) {
        (self.path, self.imageSize, self.filter) = (path, imageSize, filter)
        self.channels = channels
    }
}

/// Opens the training data on all ranks, and throws if it does not match the first stage. Starts to verify a
/// prepared folder's shards in the background; rank 0 reports when this is done. Collective.
///
/// - Parameters:
///   - firstStage: nil for training in pixel space.
/// - Throws: `DatasetError` with a one-line message.
package func openTrainingDataset(
    _ options: DataOptions, firstStage: FirstStage?, on communicator: Communicator
) throws -> any TrainingDataset {
    // With a first stage, an image source is rejected; do not read it.
    let isPrepared = try communicator.anyAgree(
        firstStage != nil || PreparedManifest.isIn(options.path))
    let sources = try SharedSources(
        isPrepared ? [] : [options.path], skipBad: false, on: communicator)
    let dataset = try communicator.collectively("opening the data") {
        try openTrainingDataset(options, firstStage: firstStage, sources)
    }
    if options.needsLabels, let images = dataset as? ImageDataset {
        return try images.labelled(on: communicator)
    }
    let isRoot = communicator.isRoot
    dataset.preparedFolder?.verifyInBackground { line in if isRoot { printLine(line) } }
    return dataset
}

/// Opens the training data on one rank, without background verification: shards are verified when they are
/// first used.
package func openTrainingDataset(
    _ options: DataOptions, firstStage: FirstStage?
) throws(DatasetError) -> any TrainingDataset {
    try openTrainingDataset(options, firstStage: firstStage, nil)
}

/// - Parameter sources: the sources that the ranks have opened together.
private func openTrainingDataset(
    _ options: DataOptions, firstStage: FirstStage?, _ sources: SharedSources?
) throws(DatasetError) -> any TrainingDataset {
    let path = options.path
    guard PreparedManifest.isIn(path) else {
        let unfinished = FileManager.default.fileExists(atPath: "\(path)/\(PrepareRecord.folderName)")
        let isDrawn = path.hasPrefix("synthetic-faces")
        let isPattern = SourcePattern.recognizes(path)
        let isMissing = !isDrawn && !isPattern && !FileManager.default.fileExists(atPath: path)
        if unfinished || firstStage != nil && isMissing {
            // Throws an error that the folder is missing or unfinished.
            _ = try PreparedManifest.read(folder: path)
        }
        guard firstStage == nil else {
            throw DatasetError(
                .mismatch,
                "\(path): holds images, but training with a first stage requires latents; create them with `disttrain "
                    + "prepare \(path) --size N --first-stage FOLDER --output FOLDER` and set data.path to that "
                    + "folder"
            )
        }
        let source: any ImageSource
        do throws(ImageError) {
            if let sources {
                source = try sources.open(path, size: options.imageSize)
            } else {
                source = try openSource(path, size: options.imageSize, skipBad: false)
            }
        } catch {
            throw DatasetError(.inaccessible, error.description, code: error.code)
        }
        return ImageDataset(
            source,
            transform: ImageTransform(
                size: options.imageSize, filter: options.filter, channels: options.channels ?? 3))
    }

    let folder = try PreparedFolder(path)
    let prepared = folder.manifest.job.channels
    guard options.channels ?? prepared == prepared else {
        throw DatasetError(
            .mismatch,
            "\(path): was prepared from images of \(prepared) \(prepared == 1 ? "channel" : "channels"), but "
                + "data.channels is \(options.channels ?? 3); remove data.channels, or prepare the images again with "
                + "--channels \(options.channels ?? 3)")
    }
    switch (folder.manifest.firstStage, firstStage) {
    case (nil, nil):
        return try PixelDataset(folder)
    case (let made?, let firstStage?):
        let hash = firstStage.weightsHash
        guard made.weightsHash == hash else {
            throw DatasetError(
                .mismatch,
                "\(path): these latents were encoded by a different first stage (\(made.className), weights "
                    + "\(made.weightsHash)) than the configured one (weights \(hash)); configure the original one, or "
                    + "prepare the images again")
        }
        return try LatentDataset(
            folder, scalingFactor: Double(firstStage.scalingFactor),
            shiftFactor: Double(firstStage.shiftFactor))
    case (nil, _):
        throw DatasetError(
            .mismatch,
            "\(path): holds pixels, but first_stage is configured; prepare the images with --first-stage, "
                + "or remove first_stage to train in pixel space")
    case (let made?, nil):
        throw DatasetError(
            .mismatch,
            "\(path): holds latents of an \(made.className), but no first_stage is configured; set "
                + "first_stage.path"
        )
    }
}

/// Opens an image source; for synthetic faces, also with their seed, as `synthetic-faces:COUNT:SEED`.
func openSource(
    _ specification: String, size: Int, skipBad: Bool, limits: ImageLimits = .standard
) throws(ImageError) -> any ImageSource {
    let parts = specification.split(separator: ":", omittingEmptySubsequences: false)
    guard parts.count == 3, parts[0] == "synthetic-faces" else {
        return try openImageSource(specification, size: size, skipBad: skipBad, limits: limits)
    }
    guard let seed = UInt64(parts[2]) else {
        throw ImageError(
            .unknownSource, name: specification,
            "\"\(parts[2])\" is not a seed; expected synthetic-faces:COUNT:SEED with a whole number")
    }
    return try openImageSource("synthetic-faces:\(parts[1])", size: size, seed: seed, skipBad: skipBad)
}

extension ParameterStore {
    /// A hash of the tensors' names, shapes and fp32 values, independent of the host and of the file format
    /// they were loaded from. 16 hexadecimal digits.
    package var contentHash: String {
        var hash = SourceFingerprint()
        for parameter in parameters.sorted(by: { $0.name < $1.name }) {
            hash.add(parameter.name)
            for side in parameter.shape { hash.add(side) }
            hash.add([UInt8](UnsafeRawBufferPointer(parameter.values)))
        }
        return hash.text
    }
}

extension FirstStage {
    /// The channels of the images that the first stage encodes and decodes: 1 or 3.
    ///
    /// - Parameter path: its folder, for errors.
    package func pictureChannels(_ path: String) throws(DatasetError) -> Int {
        guard imageChannels == outputChannels, Image.channelCounts.contains(imageChannels) else {
            throw DatasetError(
                .mismatch,
                "\(path): encodes images of \(imageChannels) channels and decodes to \(outputChannels); expected 3 "
                    + "(RGB) or 1 (grayscale) for both")
        }
        return imageChannels
    }

    /// A hash of the weights; see `ParameterStore.contentHash`.
    package var weightsHash: String { model.store.contentHash }

    /// The record of this first stage for the manifest of a prepared folder.
    package var record: PreparedManifest.FirstStageRecord {
        switch model {
        case .autoencoderKL(let model):
            return PreparedManifest.FirstStageRecord(
                className: model.config.className, config: model.config.node.json, weightsHash: weightsHash,
                scalingFactor: model.config.scalingFactor, shiftFactor: model.config.shiftFactor)
        case .vqModel(let model):
            return PreparedManifest.FirstStageRecord(
                className: model.config.className, config: model.config.node.json, weightsHash: weightsHash,
                scalingFactor: model.config.scalingFactor)
        }
    }

    /// The record of this first stage for a checkpoint of the diffusion model trained with it.
    package func reference(path: String) -> FirstStageReference {
        let record = record
        return FirstStageReference(
            path: path, weightsHash: record.weightsHash, scalingFactor: record.scalingFactor,
            shiftFactor: record.shiftFactor ?? 0)
    }

    /// Whether the encoder outputs a Gaussian from which latents are sampled.
    var hasPosterior: Bool {
        if case .autoencoderKL = model { return true }
        return false
    }
}
