import Dispatch
import FileFormats
import Foundation
import Imaging
import LDMModel
import Support
import Synchronization
import TensorCore

// n: images of a shard; b: images per encoder pass; H, W, C: image; h, w, c: latent.

/// Makes the shards of one rank: decodes, transforms and encodes images, and writes the files.
struct ShardMaker {
    /// The source as given by the user.
    let sourceName: String
    var job: PrepareJob
    let source: any ImageSource
    let transform: ImageTransform
    let firstStage: FirstStage?
    var labels: ClassLabels
    let folder: String
    /// Images per decoder and encoder pass.
    let batch: Int
    let skipBad: Bool

    /// An image that could not be decoded.
    struct BadItem: Codable, Comparable {
        let index: Int
        let item: String
        let reason: String

        static func < (a: BadItem, b: BadItem) -> Bool { a.index < b.index }
    }

    /// Shape of a sample: [height, width, channels].
    func sampleShape() throws -> (height: Int, width: Int, channels: Int) {
        guard let firstStage else { return (job.imageSize, job.imageSize, job.channels) }
        let size = try firstStage.latentSize(height: job.imageSize, width: job.imageSize)
        return (size.height, size.width, firstStage.latentChannels)
    }

    /// Makes a shard and its record.
    ///
    /// - Parameter progress: called with the number of images finished so far.
    /// - Returns: the images that cannot be decoded. If there are any and they must not be skipped, nothing
    ///   is written.
    func make(_ shard: Int, progress: (Int) -> Void) throws -> [BadItem] {
        var bad: [BadItem] = []
        var content = ShardContent(channels: try sampleShape().channels)
        // Fill batches even if images are skipped, because each batch size requires a separate recording.
        var waiting: [(index: Int, image: Image)] = []
        var done = 0
        for items in batches(shard) {
            for (index, result) in decode(items) {
                switch result {
                case .success(let image): waiting.append((index, image))
                case .failure(let error): bad.append(try badItem(index, error))
                }
            }
            guard bad.isEmpty || skipBad else { continue }
            while waiting.count >= batch {
                try encode(Array(waiting.prefix(batch)), into: &content)
                waiting.removeFirst(batch)
            }
            done += items.count
            progress(done)
        }
        guard bad.isEmpty || skipBad else { return bad }
        if !waiting.isEmpty { try encode(waiting, into: &content) }
        guard content.statistics.isFinite else {
            throw DatasetError(
                .mismatch,
                "\(PrepareJob.shardName(shard)): the first stage produced NaN or infinite values; "
                    + "check its weights, or use --precision fp32")
        }
        try write(content, shard: shard, bad: bad)
        return bad
    }

    /// Only decodes a shard's images, to find the bad ones.
    func scan(_ shard: Int, progress: (Int) -> Void) throws(ImageError) -> [BadItem] {
        var bad: [BadItem] = []
        var done = 0
        for items in batches(shard) {
            for (index, result) in decode(items) {
                if case .failure(let error) = result { bad.append(try badItem(index, error)) }
            }
            done += items.count
            progress(done)
        }
        return bad
    }

    private func batches(_ shard: Int) -> [Range<Int>] {
        let items = job.items(ofShard: shard)
        return stride(from: items.lowerBound, to: items.upperBound, by: batch).map {
            $0..<min($0 + batch, items.upperBound)
        }
    }

    /// An item's error without a repeated name. A storage fault is rethrown: it must not mark an image as
    /// bad, which would allow skipping it.
    private func badItem(_ index: Int, _ error: ImageError) throws(ImageError) -> BadItem {
        if StorageFault.includes(error.code) { throw error }
        return BadItem(index: index, item: source.itemName(at: index), reason: error.detail)
    }

    /// Decodes and transforms images on all threads of this process.
    func decode(_ items: Range<Int>) -> [(index: Int, result: Result<Image, ImageError>)] {
        let results = Mutex<[Int: Result<Image, ImageError>]>([:])
        let threads = max(1, min(items.count, Processor.threads))
        let (source, transform) = (source, transform)
        DispatchQueue.concurrentPerform(iterations: threads) { thread in
            for index in stride(from: items.lowerBound + thread, to: items.upperBound, by: threads) {
                let result = Result { () throws(ImageError) in
                    transform.apply(try source.image(at: index))
                }
                results.withLock { $0[index] = result }
            }
        }
        return results.withLock { found in items.compactMap { i in found[i].map { (i, $0) } } }
    }

    // MARK: Encoding

    private func encode(_ images: [(index: Int, image: Image)], into content: inout ShardContent) throws {
        content.count += images.count
        if !labels.names.isEmpty { content.labels += images.map { Int(labels.indices[$0.index]) } }
        guard let firstStage else {
            for item in images {
                item.image.floats().withUnsafeBufferPointer { content.statistics.add($0) }
                content.pixels += item.image.pixels
            }
            return
        }
        let encoded = try encode(firstStage, images.map(\.image))
        encoded.mean.withUnsafeBufferPointer { mean in
            if let logvar = encoded.logVariance {
                logvar.withUnsafeBufferPointer { content.statistics.add(mean, logvar: $0) }
            } else {
                content.statistics.add(mean)
            }
        }
        content.append(encoded, suffix: "")
        if job.flip {
            content.append(
                try encode(firstStage, images.map { $0.image.flippedHorizontally() }), suffix: "_flipped")
        }
    }

    /// - Returns: latents [b, h, w, c]
    private func encode(_ firstStage: FirstStage, _ images: [Image]) throws -> EncodedImages {
        let pixels = images.flatMap { $0.floats() }  // [b, H, W, C]
        return try pixels.withUnsafeBufferPointer {
            try firstStage.encode($0, batch: images.count, height: job.imageSize, width: job.imageSize)
        }
    }

    // MARK: Writing

    private func write(_ content: ShardContent, shard: Int, bad: [BadItem]) throws {
        let file = "\(folder)/\(PrepareJob.shardName(shard))"
        let shape = try sampleShape()
        let entries = PreparedManifest.tensors(
            kind: job.kind, posterior: firstStage?.hasPosterior ?? false, flip: job.flip,
            labels: !labels.names.isEmpty,
            shape: [content.count, shape.height, shape.width, shape.channels])
        do {
            var writer = try SafetensorsWriter(
                path: file, tensors: entries, metadata: ["format": "disttrain"])
            for entry in entries {
                switch entry.name {
                case "image": try content.pixels.withUnsafeBytes { try writer.append(entry.name, bytes: $0) }
                case "label":
                    try content.labels.map { Int64($0).littleEndian }
                        .withUnsafeBytes { try writer.append(entry.name, bytes: $0) }
                default: try writer.append(entry.name, floats: content.latents[entry.name] ?? [])
                }
            }
            try writer.finish()
            let checksum = try fileChecksum(file)
            try PrepareRecord(
                job: job, count: content.count, bytes: checksum.bytes, crc32: checksum.crc32,
                crc32c: checksum.crc32c,
                skipped: bad.map { PreparedManifest.Skipped(item: $0.item, reason: $0.reason) },
                statistics: content.statistics
            ).write(folder: folder, shard: shard)
        } catch {
            throw DatasetError(
                .inaccessible,
                "\(error); finished shards are kept: fix this, then run the same command again",
                code: fileErrorCode(error))
        }
    }
}

/// The content of a shard, in memory.
private struct ShardContent {
    var count = 0
    /// [n, h, w, c] by tensor name.
    var latents: [String: [Float]] = [:]
    /// [n, H, W, C]
    var pixels: [UInt8] = []
    /// [n]
    var labels: [Int] = []
    var statistics: LatentStatistics

    init(channels: Int) { statistics = LatentStatistics(channels: channels) }

    mutating func append(_ encoded: EncodedImages, suffix: String) {
        guard let logvar = encoded.logVariance else {
            latents["latent" + suffix, default: []] += encoded.mean
            return
        }
        latents["mean" + suffix, default: []] += encoded.mean
        latents["logvar" + suffix, default: []] += logvar
    }
}
