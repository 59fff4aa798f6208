import Communication
import Datasets
import FileFormats
import Foundation
import Imaging
import Support

// N: images, D: feature dimension, n: images of a shard.

/// The features of a set of images, computed on all ranks and stored in a file.
///
/// The ranks take shards of 32 images in turn and write one file per finished shard, so that an interrupted
/// computation can resume on any number of ranks. The images of a shard pass the networks in the same batches
/// on any rank. At the end, rank 0 merges the shards into one file, which every rank reads.
///
/// The file names contain a hash of everything that the features depend on, and the file's metadata repeats
/// it in full: a file of other images, weights or sizes is rejected.
struct FeatureCollection {
    let images: any EvaluationImages
    let extractor: FeatureExtractor
    /// Folder of the file, and of the shards until it is complete.
    let folder: String
    /// "samples" or "reference".
    let title: String
    /// Height and width of the thumbnails stored with the features; nil for none.
    var thumbnailSide: Int?
    /// Whether the features of the mirrored images are computed too.
    var mirrors = false
    /// The images' fingerprint by the rule of earlier versions; nil to use the current one.
    private var earlierFingerprint: String?

    init(
        images: any EvaluationImages, extractor: FeatureExtractor, folder: String, title: String,
        thumbnailSide: Int? = nil, mirrors: Bool = false
    ) {
        (self.images, self.extractor, self.folder, self.title) = (images, extractor, folder, title)
        (self.thumbnailSide, self.mirrors) = (thumbnailSide, mirrors)
    }

    /// The same collection under the images' earlier fingerprint if only a file of an earlier version exists;
    /// otherwise self. Collective.
    func preferringEarlier(_ communicator: Communicator) throws -> FeatureCollection {
        let earlier = try communicator.fromRoot("looking at \(folder)") {
            if FileManager.default.fileExists(atPath: path) { return "" }
            let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
            let isOther = names.contains { $0.hasPrefix("\(title)-") && $0.hasSuffix(".safetensors") }
            guard isOther, let earlier = images.earlierFingerprint else { return "" }
            var collection = self
            collection.earlierFingerprint = earlier
            return FileManager.default.fileExists(atPath: collection.path) ? earlier : ""
        }
        var collection = self
        if !earlier.isEmpty { collection.earlierFingerprint = earlier }
        return collection
    }

    private static let shardSize = 32

    private var shardCount: Int { (images.count + Self.shardSize - 1) / Self.shardSize }
    private var stem: String {
        let hash = contentHash(manifest.map { "\($0.key) \($0.value)" })
        return "\(folder)/\(title)-\(extractor.kind.rawValue)-\(hash)"
    }
    /// The complete file.
    var path: String { "\(stem).safetensors" }
    private func shardPath(_ shard: Int) -> String { "\(stem)/shard-\(padded(shard, digits: 5)).safetensors" }
    func shard(_ index: Int) -> Range<Int> {
        index * Self.shardSize..<min((index + 1) * Self.shardSize, images.count)
    }

    /// Everything that the features depend on; stored as the file's metadata.
    private var manifest: KeyValuePairs<String, String> {
        [
            "format": "disttrain features 1", "kind": extractor.kind.rawValue,
            "network": extractor.fingerprint, "side": String(extractor.side),
            "images": earlierFingerprint ?? images.fingerprint,
            "count": String(images.count), "thumbnails": String(thumbnailSide ?? 0),
            "mirrored": String(mirrors),
        ]
    }

    /// Seconds spent by this process on this rank.
    struct Seconds {
        var images = 0.0
        var features = 0.0
    }

    /// The opened file of all features.
    struct Collected {
        let features: FeatureMatrix
        /// Features of the mirrored images, if requested.
        let mirrored: FeatureMatrix?
        let file: SafetensorsFile
        let seconds: Seconds
    }

    /// The shards that have not been computed; empty if the complete file exists. Collective.
    func pending(_ communicator: Communicator) throws -> [Int] {
        try communicator.fromRoot("looking at \(folder)") {
            try makeOutputFolder(folder)
            if FileManager.default.fileExists(atPath: path) { return [] }
            try makeOutputFolder(stem)
            return (0..<shardCount).filter { shard in
                guard let file = try? SafetensorsFile(path: shardPath(shard)) else { return true }
                return (try? check(file, count: self.shard(shard).count)) == nil
            }
        }
    }

    /// Computes the pending shards and opens the complete file. Collective.
    ///
    /// - Parameter progress: called on rank 0 with the number of images finished, estimated for all ranks.
    func collect(
        _ pending: [Int], _ communicator: Communicator, progress: (Double) -> Void, tick: () -> Void
    ) throws -> Collected {
        var seconds = Seconds()
        var done = 0
        for first in stride(from: 0, to: pending.count, by: communicator.size) {
            let round = pending[first..<min(first + communicator.size, pending.count)]
            let size = round.reduce(0) { $0 + shard($1).count }
            try communicator.collectively("computing the features of \(images.name)") {
                guard communicator.rank < round.count else { return }
                try make(round[first + communicator.rank], &seconds) { own in
                    tick()
                    // Extrapolate from this rank's share to all shards of the round.
                    progress(Double(done) + min(own * Double(round.count), Double(size)))
                }
            }
            done += size
            progress(Double(done))
        }
        try communicator.barrier()
        try communicator.collectively("writing \(path)") {
            if communicator.isRoot, !FileManager.default.fileExists(atPath: path) { try merge() }
        }
        let file = try communicator.collectively("opening \(path)") {
            try awaiting(path) {
                let file = try SafetensorsFile(path: path)
                try check(file, count: images.count)
                return file
            }
        }
        return Collected(
            features: try FeatureMatrix(file),
            mirrored: mirrors ? try FeatureMatrix(file, FeatureMatrix.mirrored) : nil, file: file,
            seconds: seconds)
    }

    /// Deletes the file.
    func remove() { unlink(path) }

    // MARK: Shards

    private func make(_ index: Int, _ seconds: inout Seconds, progress: (Double) throws -> Void) throws {
        var began = monotonicSeconds()
        let range = shard(index)
        let pictures = try images.images(range, progress: progress)
        seconds.images += monotonicSeconds() - began
        began = monotonicSeconds()
        let features = try extractor(pictures)
        let mirrored = mirrors ? try extractor(pictures.map { $0.flippedHorizontally() }) : []
        seconds.features += monotonicSeconds() - began
        if let bad = (features + mirrored).firstIndex(where: { !$0.isFinite }) {
            throw RunError(
                "\(images.name): the features of image "
                    + "\(range.lowerBound + bad / extractor.dimension % range.count) are not finite "
                    + "numbers; check the feature network's weights",
                exitStatus: ExitStatus.numericalFault)
        }
        var writer = try SafetensorsWriter(
            path: shardPath(index), tensors: tensors(count: range.count), metadata: metadata)
        try writer.append(FeatureMatrix.tensor, floats: features)
        if mirrors { try writer.append(FeatureMatrix.mirrored, floats: mirrored) }
        if let side = thumbnailSide {
            let bytes = pictures.flatMap {
                $0.resized(width: side, height: side, filter: .area).converted(toChannels: 3).pixels
            }
            try bytes.withUnsafeBytes { try writer.append(Self.thumbnails, bytes: $0) }
        }
        try writer.finish()
    }

    private func merge() throws {
        let tensors = tensors(count: images.count)
        var writer = try SafetensorsWriter(path: path, tensors: tensors, metadata: metadata)
        for tensor in tensors {
            // Open only one shard at a time, since there may be more shards than the limit on open files.
            for index in 0..<shardCount {
                let file = try awaiting(shardPath(index)) { try SafetensorsFile(path: shardPath(index)) }
                try check(file, count: shard(index).count)
                try file.withBytes(of: tensor.name) { try writer.append(tensor.name, bytes: $0) }
            }
        }
        try writer.finish()
        try? FileManager.default.removeItem(atPath: stem)
    }

    // MARK: Files

    private static let thumbnails = "thumbnails"
    private var metadata: [String: String] {
        Dictionary(uniqueKeysWithValues: manifest.map { ($0.key, $0.value) })
    }

    private func tensors(count: Int) -> [SafetensorsEntry] {
        let names = [FeatureMatrix.tensor] + (mirrors ? [FeatureMatrix.mirrored] : [])
        let features = names.map { SafetensorsEntry($0, shape: [count, extractor.dimension]) }
        guard let side = thumbnailSide else { return features }
        return features + [SafetensorsEntry(Self.thumbnails, dtype: .u8, shape: [count, side, side, 3])]
    }

    /// Rejects a file of other images, weights or sizes.
    private func check(_ file: SafetensorsFile, count: Int) throws {
        for (key, expected) in manifest where file.metadata[key] != expected {
            throw RunError(
                "\(file.path): was made with different \(key) (\(file.metadata[key] ?? "none"), "
                    + "expected \(expected)); delete it, or choose another folder",
                exitStatus: ExitStatus.refused)
        }
        for tensor in tensors(count: count) {
            try file.expectShape(tensor.shape, of: tensor.name)
            guard try file.info(of: tensor.name).dtype == tensor.dtype else {
                throw RunError(
                    "\(file.path): \(tensor.name) has a different type; delete it",
                    exitStatus: ExitStatus.refused)
            }
        }
    }

    /// The thumbnail of an image.
    func thumbnail(_ index: Int, of file: SafetensorsFile) throws -> Image {
        guard let side = thumbnailSide else { preconditionFailure("no thumbnails were kept") }
        return try file.withBytes(of: Self.thumbnails, rows: index..<index + 1) {
            Image(width: side, height: side, pixels: [UInt8]($0))
        }
    }
}
