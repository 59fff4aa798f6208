import Communication
import Foundation
import Imaging
import Support
import Synchronization

/// Images that `prepare` has stored as bytes; a sample is pixel / 127.5 - 1.
package final class PixelDataset: PreparedDataset {
    package let folder: PreparedFolder

    package init(_ folder: PreparedFolder) throws(DatasetError) {
        guard folder.manifest.job.kind == .pixels else {
            throw DatasetError(.mismatch, "\(folder.path): holds latents, expected pixels")
        }
        self.folder = folder
    }

    package func read(
        _ index: Int, flipped: Bool, key: SampleKey, into out: UnsafeMutableBufferPointer<Float>
    ) throws {
        try folder.withSample("image", index) {
            writePixels(
                $0.bindMemory(to: UInt8.self), width: width, channels: channels, flipped: flipped, into: out)
        }
    }
}

/// Images that are decoded, cropped and resized on first use, and cached as bytes: the dataset of a
/// pixel-space run that reads images directly. Nothing is written to disk.
package final class ImageDataset: TrainingDataset {
    /// Default size of the cache in bytes; images that do not fit are decoded at each visit.
    package static let defaultCacheBytes = 4 << 30

    package let source: any ImageSource
    package let transform: ImageTransform
    package let count: Int
    private let labels: ClassLabels
    private let cachedCount: Int
    private let cache: Mutex<[Int: [UInt8]]>

    /// - Parameters:
    ///   - labels: the classes of the source's items, for a class-conditional model.
    ///   - limit: use only the first images.
    ///   - cacheBytes: memory for decoded images, in bytes.
    package init(
        _ source: any ImageSource, transform: ImageTransform, labels: ClassLabels = .none,
        limit: Int? = nil, cacheBytes: Int = ImageDataset.defaultCacheBytes
    ) {
        self.source = source
        self.transform = transform
        self.labels = labels
        count = min(source.count, limit ?? source.count)
        cachedCount = cacheBytes / transform.byteCount
        cache = Mutex([:])
    }

    package var name: String { source.name }
    package var fingerprint: String {
        Self.fingerprint(source.fingerprint + (labels.hash ?? ""), transform, count)
    }
    package var earlierFingerprint: EarlierFingerprint? {
        EarlierFingerprint { [source, transform, count] in
            Self.fingerprint(source.sampledFingerprint, transform, count)
        }
    }

    /// Has the version prefix of the source's fingerprint.
    private static func fingerprint(_ source: String, _ transform: ImageTransform, _ count: Int) -> String {
        let prefix = source.hasPrefix(SourceFingerprint.prefix) ? SourceFingerprint.prefix : ""
        return prefix + contentHash([source, transform.description, String(count)])
    }

    package var classNames: [String] { labels.names }
    package func label(_ index: Int) -> Int? { labels.indices.isEmpty ? nil : Int(labels.indices[index]) }

    /// The same images with the source's labels. Collective: each rank reads a share of them.
    func labelled(on communicator: Communicator) throws -> ImageDataset {
        ImageDataset(
            source, transform: transform,
            labels: try ClassLabels.read(.automatic, of: source, count: source.count, on: communicator))
    }

    package var height: Int { transform.size }
    package var width: Int { transform.size }
    package var channels: Int { transform.channels }

    package func read(
        _ index: Int, flipped: Bool, key: SampleKey, into out: UnsafeMutableBufferPointer<Float>
    ) throws {
        try pixels(index).withUnsafeBufferPointer {
            writePixels($0, width: width, channels: channels, flipped: flipped, into: out)
        }
    }

    /// The image's bytes, [H, W, C].
    private func pixels(_ index: Int) throws(DatasetError) -> [UInt8] {
        precondition((0..<count).contains(index), "sample \(index) of \(count)")
        if let known = cache.withLock({ $0[index] }) { return known }
        let image: Image
        do {
            image = transform.apply(try source.image(at: index))
        } catch {
            throw DatasetError(
                .badImages,
                "\(error.description); remove it, or prepare a dataset without it: disttrain prepare --skip-bad",
                code: error.code)
        }
        // Two threads may decode the same image concurrently; the results are identical.
        if index < cachedCount { cache.withLock { $0[index] = image.pixels } }
        return image.pixels
    }
}

extension ImageDataset {
    /// Faces of `size` by `size` pixels, drawn on first use.
    package convenience init(syntheticFaces count: Int, size: Int, seed: UInt64 = 0) {
        self.init(
            SyntheticFacesSource(count: count, size: size, seed: seed), transform: ImageTransform(size: size))
    }
}

/// Converts bytes [H, W, C] to floats in [-1, 1], optionally mirrored.
private func writePixels(
    _ pixels: UnsafeBufferPointer<UInt8>, width: Int, channels C: Int, flipped: Bool,
    into out: UnsafeMutableBufferPointer<Float>
) {
    precondition(out.count == pixels.count, "\(out.count) values for a sample of \(pixels.count)")
    guard flipped else {
        for i in pixels.indices { out[i] = Float(pixels[i]) / 127.5 - 1 }
        return
    }
    for row in stride(from: 0, to: pixels.count, by: C * width) {
        for x in 0..<width {
            let (to, from) = (row + C * x, row + C * (width - 1 - x))
            for c in 0..<C { out[to + c] = Float(pixels[from + c]) / 127.5 - 1 }
        }
    }
}
