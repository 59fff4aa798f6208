import Communication
import Configuration
import Foundation
import Imaging
import LDMModel
import Support
import TensorCore

/// The options of `disttrain prepare`.
package struct PrepareOptions: Sendable {
    package enum Precision: String, CaseIterable, Sendable {
        /// bf16 if every rank's processor has native bf16 multiplication, otherwise fp32.
        case auto
        case fp32
        case bf16
    }

    /// See ``openImageSource(_:size:seed:skipBad:limits:)``, or `synthetic-faces:COUNT:SEED`.
    package var source: String
    package var output: String
    /// Side of an image in pixels.
    package var size: Int
    package var filter = ResizeFilter.lanczos
    /// 3, or 1 to convert the images to luma; nil for the channels of the first stage's images, or 3.
    package var channels: Int?
    /// A diffusers folder of an AutoencoderKL or VQModel; nil to prepare pixels.
    package var firstStage: String?
    /// Also store latents of the mirrored images.
    package var flip = false
    /// Skip images that cannot be decoded instead of failing.
    package var skipBad = false
    /// Images above these limits cannot be decoded.
    package var limits = ImageLimits.standard
    /// Images per encoder pass.
    package var batch = 8
    /// Use only the first images.
    package var limit: Int?
    package var precision = Precision.auto
    package var labels = LabelChoice.automatic

    package init(source: String, output: String, size: Int) {
        (self.source, self.output, self.size) = (source, output, size)
    }
}

/// Converts images to sharded training samples on all ranks. Collective; all ranks get the same result.
///
/// Each shard is written atomically, with a record of its inputs, so an interrupted run resumes where it
/// stopped, on any number of ranks. After each round of shards the ranks exchange their progress and whether
/// any image could not be decoded. In that case the remaining images are only checked, so that the error
/// lists all bad images.
///
/// - Parameter showsProgress: rank 0 writes a progress line to standard error.
/// - Throws: `DatasetError` with a one-line message, or `RemoteFailure` if another rank failed.
package func prepare(
    _ options: PrepareOptions, on communicator: Communicator, showsProgress: Bool = true
) throws -> PrepareSummary {
    let start = ContinuousClock.now
    let maker = try openMaker(options, communicator)
    let job = maker.job

    // Find the finished shards; each rank verifies its share.
    try communicator.collectively("checking the output folder") {
        if communicator.isRoot { try takeOutputFolder(options.output, job) }
    }
    var finished = [Double](repeating: 0, count: job.shardCount)
    try communicator.collectively("verifying finished shards") {
        for shard in stride(from: communicator.rank, to: job.shardCount, by: communicator.size) {
            finished[shard] = try isFinished(shard, maker) ? 1 : 0
        }
    }
    try communicator.allReduceSum(&finished)
    let pending = (0..<job.shardCount).filter { finished[$0] == 0 }

    let manifestPath = "\(options.output)/\(PreparedManifest.fileName)"
    let preview = "\(options.output)/preview.png"
    if !pending.isEmpty {
        try communicator.collectively("replacing the manifest") {
            // Delete the manifest first, because it marks the folder as complete.
            if communicator.isRoot, unlink(manifestPath) != 0, errno != ENOENT {
                let code = errno
                throw DatasetError(
                    .inaccessible, "\(manifestPath): cannot be replaced: \(systemReason(code))", code: code)
            }
        }
        try makeShards(pending, maker, communicator, showsProgress: showsProgress)
    }
    try communicator.barrier()
    try communicator.collectively("writing the manifest") {
        if communicator.isRoot { try writeManifest(maker, to: manifestPath) }
    }
    try communicator.barrier()
    let manifest = try communicator.collectively("reading the manifest") {
        try awaiting(manifestPath) { try PreparedManifest.read(folder: options.output) }
    }
    let hasPreview = try communicator.fromRoot("looking for the preview") {
        FileManager.default.fileExists(atPath: preview)
    }
    if !pending.isEmpty || !hasPreview {
        try writePreview(maker, to: preview, communicator)
    }
    return PrepareSummary(
        manifest: manifest, reusedShards: job.shardCount - pending.count,
        seconds: (ContinuousClock.now - start).seconds, preview: preview)
}

// MARK: Opening

/// Opens source and first stage on every rank, and checks that they are identical on all ranks.
private func openMaker(_ options: PrepareOptions, _ communicator: Communicator) throws -> ShardMaker {
    try communicator.collectively("reading the options") { try options.validate() }
    let hasNativeBFloat16 = try communicator.allAgree(Processor.hasNativeBFloat16)
    let usesBFloat16 = options.precision == .bf16 || options.precision == .auto && hasNativeBFloat16

    let sources = try SharedSources(
        [options.source], skipBad: options.skipBad, limits: options.limits, readsContent: false,
        allowsStandardInput: true, on: communicator)
    var maker = try communicator.collectively("opening source and first stage") {
        try asDatasetError {
            let firstStage = try options.firstStage.map {
                try FirstStage(folder: ModelFolder($0), dtype: usesBFloat16 ? .bfloat16 : .float32)
            }
            let channels = try options.imageChannels(firstStage)
            let source = try sources.open(options.source, size: options.size)
            let transform = ImageTransform(size: options.size, filter: options.filter, channels: channels)
            let count = min(source.count, options.limit ?? source.count)
            let job = PrepareJob(
                kind: firstStage == nil ? .pixels : .latents, sourceFingerprint: "",
                itemCount: count, imageSize: options.size, transform: transform.description,
                firstStageHash: firstStage?.weightsHash, flip: firstStage != nil && options.flip,
                precision: firstStage == nil ? nil : usesBFloat16 ? "bf16" : "fp32", channels: channels)
            return ShardMaker(
                sourceName: options.source, job: job, source: source, transform: transform,
                firstStage: firstStage, labels: .none, folder: options.output, batch: options.batch,
                skipBad: options.skipBad)
        }
    }
    maker.job.sourceFingerprint = try sourceFingerprint(maker, communicator)
    let identity =
        UInt64(contentHash([try maker.job.json.text(), maker.source.labelOrigin.text]), radix: 16) ?? 0
    guard try communicator.allEqual(identity) else {
        throw DatasetError(
            .mismatch,
            "\(options.source): the ranks see different images or first stages under the same path; use "
                + "paths on a file system that all hosts share")
    }
    maker.labels = try ClassLabels.read(
        options.labels, of: maker.source, count: maker.job.itemCount, on: communicator)
    maker.job.labelsHash = maker.labels.hash
    return maker
}

/// The source's fingerprint, by the rule that existing work in the output folder used. Collective.
private func sourceFingerprint(_ maker: ShardMaker, _ communicator: Communicator) throws -> String {
    let earlier = try communicator.fromRoot("checking the output folder") {
        earlierSourceFingerprint(maker.folder) ?? ""
    }
    if !earlier.isEmpty, !earlier.hasPrefix(SourceFingerprint.prefix) {
        return maker.source.sampledFingerprint
    }
    try maker.source.readContent(on: communicator)
    return maker.source.fingerprint
}

extension PrepareOptions {
    fileprivate func validate() throws(DatasetError) {
        guard (Image.minimumSide...PrepareJob.maximumImageSize).contains(size) else {
            throw DatasetError(
                .usage, "--size \(size): expected \(Image.minimumSide) to \(PrepareJob.maximumImageSize)")
        }
        guard (1...4096).contains(batch) else {
            throw DatasetError(.usage, "--batch \(batch): expected 1 to 4096")
        }
        if let channels, !Image.channelCounts.contains(channels) {
            throw DatasetError(.usage, "--channels \(channels): expected 3, or 1 for grayscale")
        }
        if let limit, limit < 1 { throw DatasetError(.usage, "--limit \(limit): expected 1 or more") }
        if output.isEmpty { throw DatasetError(.usage, "--output: expected the name of a folder") }
    }
}

extension PrepareOptions {
    /// The channels of the prepared images, which are those that the first stage takes.
    fileprivate func imageChannels(_ firstStage: FirstStage?) throws -> Int {
        guard let firstStage, let path = self.firstStage else { return channels ?? 3 }
        _ = try firstStage.latentSize(height: size, width: size)
        let expected = try firstStage.pictureChannels(path)
        guard channels ?? expected == expected else {
            throw DatasetError(
                .mismatch,
                "--channels \(channels ?? 3): the first stage \(path) takes images of \(expected) "
                    + "\(expected == 1 ? "channel" : "channels"); omit --channels, or choose another first stage"
            )
        }
        return expected
    }
}

// MARK: Shards

/// Whether a shard exists, is complete, was made by the same job, and skipped no images unless skipping is
/// allowed.
private func isFinished(_ shard: Int, _ maker: ShardMaker) throws(DatasetError) -> Bool {
    guard let record = PrepareRecord.read(folder: maker.folder, shard: shard) else { return false }
    guard record.job == maker.job else {
        throw DatasetError(
            .mismatch,
            "\(maker.folder): contains shards of a different dataset (\(maker.job.difference(from: record.job))); "
                + "choose another --output, or delete the folder")
    }
    return (record.skipped.isEmpty || maker.skipBad) && record.matchesFile(folder: maker.folder, shard: shard)
}

/// Makes the shards in rounds of one shard per rank.
private func makeShards(
    _ pending: [Int], _ maker: ShardMaker, _ communicator: Communicator, showsProgress: Bool
) throws {
    let total = pending.reduce(0) { $0 + maker.job.items(ofShard: $1).count }
    let progress =
        communicator.isRoot && showsProgress
        ? CountProgress("prepare", unit: "images", total: total) : nil
    var done = 0
    var bad: [ShardMaker.BadItem] = []
    var anyBad = false
    for first in stride(from: 0, to: pending.count, by: communicator.size) {
        let round = pending[first..<min(first + communicator.size, pending.count)]
        let images = round.reduce(0) { $0 + maker.job.items(ofShard: $1).count }
        try communicator.collectively("making a shard") {
            guard communicator.rank < round.count else { return }
            let shard = round[first + communicator.rank]
            // Estimate the progress of the whole round from rank 0's.
            let report = { (own: Int) in progress?.update(min(done + own * round.count, done + images)) ?? ()
            }
            bad += try asDatasetError {
                anyBad && !maker.skipBad
                    ? try maker.scan(shard, progress: report) : try maker.make(shard, progress: report)
            }
        }
        done += images
        anyBad = try communicator.anyAgree(!bad.isEmpty)
    }
    progress?.finish(done)
    guard anyBad, !maker.skipBad else { return }
    let all = try communicator.allGather(bad).flatMap { $0 }.sorted()
    let others = all.count == 1 ? "" : "; \(all.count) such images in total"
    throw DatasetError(
        .badImages,
        "\(maker.sourceName): \(all[0].item): \(all[0].reason)\(others); fix or remove, or skip "
            + "with --skip-bad"
    )
}

// MARK: Manifest

private func writeManifest(_ maker: ShardMaker, to path: String) throws {
    let job = maker.job
    let shape = try maker.sampleShape()
    var statistics = LatentStatistics(channels: shape.channels)
    var shards: [PreparedManifest.Shard] = []
    var skipped = maker.source.skipped.map {
        PreparedManifest.Skipped(item: $0, reason: PreparedManifest.Skipped.noImageName)
    }
    for shard in 0..<job.shardCount {
        let name = PrepareJob.shardName(shard)
        // The record may have been written on another host; a network file system can show it with a delay.
        let record = try awaiting("\(maker.folder)/\(name)") {
            guard let record = PrepareRecord.read(folder: maker.folder, shard: shard), record.job == job
            else {
                throw DatasetError(
                    .damaged,
                    "\(maker.folder)/\(name): a rank has written this shard, but its record is not visible here; "
                        + "--output must be on a file system that all hosts share")
            }
            return record
        }
        statistics.add(record.statistics)
        skipped += record.skipped
        shards.append(
            .init(
                name: name, count: record.count, bytes: record.bytes, crc32: record.crc32,
                crc32c: record.crc32c))
    }
    let manifest = PreparedManifest(
        job: job, sourceName: maker.sourceName, height: shape.height, width: shape.width,
        channels: shape.channels, hasPosterior: maker.firstStage?.hasPosterior ?? false,
        firstStage: maker.firstStage?.record, statistics: statistics, classNames: maker.labels.names,
        shards: shards, skipped: skipped)
    guard manifest.count > 0 else {
        throw DatasetError(
            .badImages,
            "\(maker.sourceName): none of \(job.itemCount) images can be decoded; the first: "
                + (skipped.first.map { "\($0.item): \($0.reason)" } ?? ""))
    }
    do {
        try AtomicFile.write(Array((try manifest.json.text(pretty: true) + "\n").utf8), to: path)
    } catch {
        throw DatasetError(.inaccessible, "\(error)", code: fileErrorCode(error))
    }
}
