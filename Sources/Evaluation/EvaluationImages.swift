import Datasets
import Foundation
import Imaging
import LDMModel
import Support
import TensorCore

/// A set of images to compare, all of the same size, which are generated or read on demand. Image i is the
/// same on every rank.
package protocol EvaluationImages {
    /// The name used in messages.
    var name: String { get }
    var count: Int { get }
    /// A hash of the images' sources and processing; the same on every host.
    var fingerprint: String { get }
    /// The fingerprint by the rule of earlier versions, which did not hash all bytes; nil if it did not
    /// differ.
    var earlierFingerprint: String? { get }
    /// The images in `range`. `progress` is called with the number of images finished so far.
    func images(_ range: Range<Int>, progress: (Double) throws -> Void) throws -> [Image]
    /// Estimated seconds per image on this rank, from a measurement.
    func secondsPerImage() throws -> Double
    /// The class name of each image; nil if the images have no classes.
    func classNames() -> [String]?
}

extension EvaluationImages {
    package var earlierFingerprint: String? { nil }
    package func classNames() -> [String]? { nil }

    package func secondsPerImage() throws -> Double {
        let some = 0..<min(count, 8)
        let began = monotonicSeconds()
        _ = try images(some) { _ in }
        return (monotonicSeconds() - began) / Double(some.count)
    }
}

/// Images of a folder, an archive, CIFAR-10 files, or synthetic faces, cropped to their central square and
/// resized.
struct PictureSet: EvaluationImages {
    let source: any ImageSource
    let transform: ImageTransform
    let name: String
    let fingerprint: String
    /// Indices of the used items of the source, in order.
    private let items: [Int]

    /// - Parameter omitted: name of an item to leave out, such as the grid of all samples in the same folder.
    init(
        _ source: any ImageSource, name: String, _ transform: ImageTransform, limit: Int? = nil,
        omitted: String? = nil
    ) {
        (self.source, self.name, self.transform) = (source, name, transform)
        let all = (0..<source.count).filter { omitted == nil || source.itemName(at: $0) != omitted }
        items = Array(all.prefix(limit ?? all.count))
        fingerprint = Self.fingerprint(source.fingerprint, transform, items.count)
    }

    var count: Int { items.count }

    func classNames() -> [String]? {
        var names: [String] = []
        for item in items {
            guard let name = try? source.label(at: item) else { return nil }
            names.append(name)
        }
        return names
    }

    var earlierFingerprint: String? { Self.fingerprint(source.sampledFingerprint, transform, count) }

    private static func fingerprint(_ source: String, _ transform: ImageTransform, _ count: Int) -> String {
        contentHash([source, transform.description, String(count)])
    }

    func images(_ range: Range<Int>, progress: (Double) throws -> Void) throws -> [Image] {
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
                "\(error); remove it, or skip such images (evaluate and prepare: --skip-bad)",
                code: error.code)
        }
    }
}

/// Images that `prepare` stored as bytes.
struct PreparedImages: EvaluationImages {
    let folder: PreparedFolder
    let transform: ImageTransform

    var name: String { folder.path }
    var count: Int { folder.manifest.count }
    var fingerprint: String { contentHash([folder.fingerprint, transform.description]) }
    func classNames() -> [String]? { folder.sampleClassNames }

    func images(_ range: Range<Int>, progress: (Double) throws -> Void) throws -> [Image] {
        try range.map { index in
            try folder.withSample("image", index) {
                transform.apply(
                    Image(
                        width: folder.manifest.width, height: folder.manifest.height,
                        channels: folder.manifest.channels, pixels: [UInt8]($0)))
            }
        }
    }
}

/// Reconstructions of stored latents by the first stage, for data whose images are no longer available.
struct Reconstructions: EvaluationImages {
    let folder: PreparedFolder
    let firstStage: FirstStage
    let transform: ImageTransform

    var name: String { folder.path }
    var count: Int { folder.manifest.count }
    var fingerprint: String {
        contentHash(["reconstructions", folder.fingerprint, firstStage.weightsHash, transform.description])
    }
    func classNames() -> [String]? { folder.sampleClassNames }

    func images(_ range: Range<Int>, progress: (Double) throws -> Void) throws -> [Image] {
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

/// Samples of a model, generated on demand.
package struct GeneratedImages: EvaluationImages {
    package let name: String
    package let pictures: SamplePictures
    package let settings: SamplingSettings
    package let count: Int
    /// Hash of the weights and everything else that the model's samples depend on.
    package let identity: String

    package init(
        name: String, pictures: SamplePictures, settings: SamplingSettings, count: Int, identity: String
    ) {
        (self.name, self.pictures) = (name, pictures)
        self.settings = settings.resolved(for: pictures.generator.scheduler)
        (self.count, self.identity) = (count, identity)
    }

    package var fingerprint: String {
        contentHash(
            [
                identity, settings.method?.rawValue ?? "", String(settings.steps), String(settings.eta),
                settings.spacing?.rawValue ?? "", String(settings.seed), String(settings.batchSize),
            ] + (settings.karras.map { ["karras \($0)"] } ?? [])
                + (settings.classes == ClassRequest() ? [] : ["\(settings.classes)"]))
    }

    package func classNames() -> [String]? {
        let classes = try? pictures.generator.denoiser.model.config.select(settings.classes)
        return classes.map { classes in (0..<count).map { classes.name(of: $0) } }
    }

    package func images(_ range: Range<Int>, progress: (Double) throws -> Void) throws -> [Image] {
        var done = 0
        let steps = Double(try pictures.generator.evaluations(settings))
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

    /// Estimated from one denoising step, timed after another one that records the tapes.
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
        let steps = Double(try pictures.generator.evaluations(settings))
        return (steps * step + monotonicSeconds() - began) / Double(batch.count)
    }
}

/// Opens the reference images as the transform returns them: of the samples' size and channels.
///
/// - Parameters:
///   - path: a source that `prepare` can read, or a folder that it wrote. For latents, the original images
///     are read if they are still available; otherwise `firstStage` reconstructs them.
///   - sources: the sources that the ranks have opened together: those of ``referenceSources(_:)``.
///   - note: called with one line if the reference differs from what the path suggests.
func openReferenceImages(
    _ path: String, _ transform: ImageTransform, firstStage: FirstStage?, sources: SharedSources,
    note: (String) -> Void
) throws -> any EvaluationImages {
    try asDatasetError {
        guard PreparedManifest.isIn(path) else {
            return PictureSet(try sources.open(path, size: transform.size), name: path, transform)
        }
        let folder = try PreparedFolder(path)
        let manifest = folder.manifest
        guard manifest.job.channels >= transform.channels else {
            throw DatasetError(
                .mismatch,
                "\(path): was prepared with 1 channel, but the samples have \(transform.channels); use a reference of "
                    + "\(transform.channels) channels")
        }
        if manifest.job.kind == .pixels { return PreparedImages(folder: folder, transform: transform) }
        let original = try? sources.open(manifest.sourceName, size: manifest.job.imageSize)
        if let original, original.hasFingerprint(manifest.job.sourceFingerprint),
            !manifest.skipped.contains(where: { $0.reason != PreparedManifest.Skipped.noImageName })
        {
            return PictureSet(original, name: path, transform, limit: manifest.job.itemCount)
        }
        guard let firstStage, firstStage.weightsHash == manifest.firstStage?.weightsHash else {
            throw DatasetError(
                .mismatch,
                "\(path): holds latents, and the images they were encoded from, \(manifest.sourceName), do not exist; "
                    + "use the images as the reference")
        }
        note(
            "\(manifest.sourceName) does not exist: the reference consists of the first stage's reconstructions of the "
                + "latents in \(path), so the results do not include its reconstruction error")
        return Reconstructions(folder: folder, firstStage: firstStage, transform: transform)
    }
}

/// The sources from which the images of a reference may be read: the path itself, or the source of a folder
/// of latents.
package func referenceSources(_ path: String) -> [String] {
    if FeatureStatistics.areIn(path) { return [] }
    guard PreparedManifest.isIn(path) else { return [path] }
    guard let manifest = try? PreparedManifest.read(folder: path), manifest.job.kind == .latents else {
        return []
    }
    return [manifest.sourceName]
}
