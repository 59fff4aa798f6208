import Datasets
import Foundation
import Imaging
import LDMModel
import Support
import TensorCore

/// Images to be compared, all of one size, made or read when they are asked for. Image i is the same on every rank.
package protocol EvaluationImages {
    /// What messages call them.
    var name: String { get }
    var count: Int { get }
    /// A hash of what the images are made from, and how; the same on any host.
    var fingerprint: String { get }
    /// The same as versions made it that did not hash all bytes; nil where they made no other.
    var earlierFingerprint: String? { get }
    /// Images `range`. `progress` is called with the number of images finished so far.
    func images(_ range: Range<Int>, progress: (Double) throws -> Void) throws -> [Image]
    /// About how long one takes on this rank, measured.
    func secondsPerImage() throws -> Double
}

extension EvaluationImages {
    package var earlierFingerprint: String? { nil }

    package func secondsPerImage() throws -> Double {
        let some = 0..<min(count, 8)
        let began = monotonicSeconds()
        _ = try images(some) { _ in }
        return (monotonicSeconds() - began) / Double(some.count)
    }
}

/// Pictures of a folder, an archive, CIFAR-10's files, or drawn faces: cropped to their middle square and resized.
struct PictureSet: EvaluationImages {
    package let source: any ImageSource
    package let transform: ImageTransform
    package let name: String
    package let fingerprint: String
    /// The source's items in their order.
    private let items: [Int]

    /// - Parameter omitted: an item that is left out, such as the grid of all samples beside them.
    package init(
        _ source: any ImageSource, name: String, side: Int, limit: Int? = nil, omitted: String? = nil
    ) {
        (self.source, self.name) = (source, name)
        transform = ImageTransform(size: side)
        let all = (0..<source.count).filter { omitted == nil || source.itemName(at: $0) != omitted }
        items = Array(all.prefix(limit ?? all.count))
        fingerprint = Self.fingerprint(source.fingerprint, transform, items.count)
    }

    package var count: Int { items.count }

    package var earlierFingerprint: String? { Self.fingerprint(source.sampledFingerprint, transform, count) }

    private static func fingerprint(_ source: String, _ transform: ImageTransform, _ count: Int) -> String {
        contentHash([source, transform.description, String(count)])
    }

    package func images(_ range: Range<Int>, progress: (Double) throws -> Void) throws -> [Image] {
        var results = [Result<Image, ImageError>?](repeating: nil, count: range.count)
        results.withUnsafeMutableBufferPointer { results in
            let results = results
            Processor.concurrently(range.count) { place in
                results[place] = Result { () throws(ImageError) in
                    transform.apply(try source.image(at: items[range.lowerBound + place]))
                }
            }
        }
        do {
            return try results.compactMap { try $0?.get() }
        } catch let error as ImageError {
            throw DatasetError(
                .badImages,
                "\(error); remove it, or leave out such images (evaluate and prepare: --skip-bad)",
                code: error.code)
        }
    }
}

/// Images that `prepare` stored as bytes.
struct PreparedImages: EvaluationImages {
    package let folder: PreparedFolder
    package let transform: ImageTransform

    package init(_ folder: PreparedFolder, side: Int) {
        self.folder = folder
        transform = ImageTransform(size: side)
    }

    package var name: String { folder.path }
    package var count: Int { folder.manifest.count }
    package var fingerprint: String { contentHash([folder.fingerprint, transform.description]) }

    package func images(_ range: Range<Int>, progress: (Double) throws -> Void) throws -> [Image] {
        try range.map { index in
            try folder.withSample("image", index) {
                transform.apply(
                    Image(
                        width: folder.manifest.width, height: folder.manifest.height, pixels: [UInt8]($0)))
            }
        }
    }
}

/// What a first stage makes of stored latents: reconstructions, for data whose images are no longer there.
struct Reconstructions: EvaluationImages {
    package let folder: PreparedFolder
    package let firstStage: FirstStage
    package let transform: ImageTransform

    package init(_ folder: PreparedFolder, _ firstStage: FirstStage, side: Int) {
        (self.folder, self.firstStage) = (folder, firstStage)
        transform = ImageTransform(size: side)
    }

    package var name: String { folder.path }
    package var count: Int { folder.manifest.count }
    package var fingerprint: String {
        contentHash(["reconstructions", folder.fingerprint, firstStage.weightsHash, transform.description])
    }

    package func images(_ range: Range<Int>, progress: (Double) throws -> Void) throws -> [Image] {
        let manifest = folder.manifest
        let side = (height: manifest.height, width: manifest.width)
        return try range.map { index in
            let latent = try folder.withSample(manifest.hasPosterior ? "mean" : "latent", index) { bytes in
                (0..<bytes.count / 4).map {
                    Float(
                        bitPattern: UInt32(
                            littleEndian: bytes.loadUnaligned(fromByteOffset: 4 * $0, as: UInt32.self)))
                }
            }
            let pixels = latent.withUnsafeBufferPointer {
                firstStage.decode($0, batch: 1, height: side.height, width: side.width)
            }
            let f = firstStage.downsamplingFactor
            return transform.apply(
                try Image(width: f * side.width, height: f * side.height, samples: pixels))
        }
    }
}

/// Samples of a model, drawn when they are asked for.
package struct GeneratedImages: EvaluationImages {
    package let name: String
    package let pictures: SamplePictures
    package let settings: SamplingSettings
    package let count: Int
    /// Tells the weights, and all else that the model's samples depend on.
    package let identity: String

    package init(
        name: String, pictures: SamplePictures, settings: SamplingSettings, count: Int, identity: String
    ) {
        self.name = name
        self.pictures = pictures
        self.settings = settings
        self.count = count
        self.identity = identity
    }

    package var fingerprint: String {
        contentHash([
            identity, settings.method.rawValue, String(settings.steps), String(settings.eta),
            settings.spacing?.rawValue ?? "", String(settings.seed), String(settings.batchSize),
        ])
    }

    package func images(_ range: Range<Int>, progress: (Double) throws -> Void) throws -> [Image] {
        var done = 0
        let steps = Double(max(1, settings.steps))
        return try withoutActuallyEscaping(progress) { progress in
            let latents = try pictures.generator.generate(
                range, settings,
                progress: { batch in
                    done += batch
                    try progress(min(Double(range.count), Double(done) / steps))
                })
            return try pictures.decode(latents, count: range.count)
        }
    }

    /// From two denoising steps, when the tapes have been recorded by another.
    package func secondsPerImage() throws -> Double {
        let batch = 0..<min(count, settings.batchSize)
        var quick = settings
        quick.steps = 1
        _ = try pictures.decode(try pictures.generator.generate(batch, quick), count: batch.count)
        var began = monotonicSeconds()
        let latents = try pictures.generator.generate(batch, quick)
        let step = monotonicSeconds() - began
        began = monotonicSeconds()
        _ = try pictures.decode(latents, count: batch.count)
        return (Double(settings.steps) * step + monotonicSeconds() - began) / Double(batch.count)
    }
}

/// Opens the images that samples are compared with, for comparison at `side` × `side`.
///
/// - Parameters:
///   - path: a source as `prepare` reads it, or a folder that it wrote. Of latents, the images that they were made from
///     are read where they are still there; else what `firstStage` makes of them.
///   - sources: what the ranks have opened together: those of ``referenceSources(_:)``.
///   - note: called with a line if the reference is not what it might be taken for.
func openReferenceImages(
    _ path: String, side: Int, firstStage: FirstStage?, sources: SharedSources, note: (String) -> Void
) throws -> any EvaluationImages {
    try asDatasetError {
        guard PreparedManifest.isIn(path) else {
            return PictureSet(try sources.open(path, size: side), name: path, side: side)
        }
        let folder = try PreparedFolder(path)
        let manifest = folder.manifest
        if manifest.job.kind == .pixels { return PreparedImages(folder, side: side) }
        let original = try? sources.open(manifest.sourceName, size: manifest.job.imageSize)
        if let original, original.hasFingerprint(manifest.job.sourceFingerprint),
            !manifest.skipped.contains(where: { $0.reason != "no image by its name" })
        {
            return PictureSet(original, name: path, side: side, limit: manifest.job.itemCount)
        }
        guard let firstStage, firstStage.weightsHash == manifest.firstStage?.weightsHash else {
            throw DatasetError(
                .mismatch,
                "\(path): holds latents, and the images they were made from, \(manifest.sourceName), are not there; "
                    + "name the images as the reference")
        }
        note(
            "\(manifest.sourceName) is not there: the reference are reconstructions of \(path)'s latents by the first "
                + "stage, and what it loses counts for nothing")
        return Reconstructions(folder, firstStage, side: side)
    }
}

/// The sources that the images of a reference may be read from: itself, or what a folder of latents was made from.
package func referenceSources(_ path: String) -> [String] {
    if path.hasSuffix(".npz") { return [] }
    guard PreparedManifest.isIn(path) else { return [path] }
    guard let manifest = try? PreparedManifest.read(folder: path), manifest.job.kind == .latents else {
        return []
    }
    return [manifest.sourceName]
}
