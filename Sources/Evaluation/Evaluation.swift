import Communication
import FileFormats
import Foundation
import Imaging
import Records
import Support

/// The reference that samples are compared with.
package enum EvaluationReference {
    case images(any EvaluationImages)
    /// Only the mean and covariance of features, from another program's .npz file, which suffice for a
    /// Fréchet distance.
    case statistics(FeatureStatistics, path: String, fingerprint: String)

    package var name: String {
        switch self {
        case .images(let images): images.name
        case .statistics(_, let path, _): path
        }
    }
    /// Number of images; 0 if unknown.
    package var count: Int {
        switch self {
        case .images(let images): images.count
        case .statistics(let statistics, _, _): statistics.count
        }
    }
    package var fingerprint: String {
        switch self {
        case .images(let images): images.fingerprint
        case .statistics(_, _, let fingerprint): fingerprint
        }
    }
}

/// Compares samples with a reference: extracts the features of both, then computes all metrics. On all ranks.
package struct Evaluation {
    package let samples: any EvaluationImages
    package let reference: EvaluationReference
    package let extractor: FeatureExtractor
    /// Folder in which the reference's features are cached for later evaluations.
    package let cache: String
    /// Folder in which the samples' features are kept until the metrics are computed.
    package let work: String
    /// Seed for drawing KID's subsets.
    package let seed: UInt64
    package let communicator: Communicator
    /// Called regularly while the evaluation makes progress.
    package var tick: () -> Void = {}
    package var showsProgress = true

    package init(
        samples: any EvaluationImages, reference: EvaluationReference, extractor: FeatureExtractor,
        cache: String, work: String, seed: UInt64, communicator: Communicator,
        tick: @escaping () -> Void = {}, showsProgress: Bool = true
    ) {
        (self.samples, self.reference, self.extractor) = (samples, reference, extractor)
        (self.cache, self.work, self.seed, self.communicator) = (cache, work, seed, communicator)
        (self.tick, self.showsProgress) = (tick, showsProgress)
    }

    /// Maximum height and width of thumbnails in pixels.
    private static let thumbnailSide = 128
    /// Number of columns and rows in the pictures of the closest pairs and of the samples.
    private static let shown = 8

    private var thumbnailSide: Int { min(Self.thumbnailSide, extractor.side) }
    private var sampleCollection: FeatureCollection {
        FeatureCollection(
            images: samples, extractor: extractor, folder: work, title: "samples",
            thumbnailSide: thumbnailSide, mirrors: referenceCollection != nil)
    }
    private var referenceCollection: FeatureCollection? {
        guard case .images(let images) = reference else { return nil }
        return FeatureCollection(images: images, extractor: extractor, folder: cache, title: "reference")
    }

    package struct Outcome {
        package var metrics: [(name: String, value: Double)]
        /// The same comparison within each class; empty if samples or reference have no classes.
        package var classes: [EvaluationResult.ClassResult] = []
        /// On rank 0: the samples closest to training images above those images, and a grid of the first
        /// samples.
        package var nearest: Image?
        package var grid: Image?
        package var seconds: (sampling: Double, features: Double, measures: Double)
        /// Path of the file with the samples' features.
        package var features: String
    }

    /// Computes all metrics. Collective.
    package func run() throws -> Outcome {
        let others = try referenceCollection?.preferringEarlier(communicator).withPending(communicator)
        let pending = try sampleCollection.pending(communicator)
        try announce(pending, others)
        let theirs = try others.map { try collect($0.0, $0.1, "reference") }
        let ours = try collect(sampleCollection, pending, "samples")

        let began = monotonicSeconds()
        var metrics = try distances(ours.features, theirs?.features)
        var nearest: Image?
        var classes: [EvaluationResult.ClassResult] = []
        if let theirs {
            let (more, pairs) = try neighbours(ours, theirs.features)
            metrics += more
            if case .images(let images) = reference,
                let measures = try ClassMeasures(
                    (samples, ours.features), (images, theirs.features), kind: extractor.kind, seed: seed,
                    communicator, tick: tick)
            {
                classes = measures.classes
                metrics.append(("\(extractor.kind.kernelName)_in_class", measures.meanKernelDistance))
            }
            nearest = try communicator.collectively("drawing the picture of the nearest images") {
                communicator.isRoot ? try picture(of: pairs, ours.file) : nil
            }
        } else {
            // A reference without features permits no nearest-neighbour search.
            let own = try OwnNeighbours(ours.features, k: 1, communicator)
            metrics.append(("mean_pairwise_distance", own.meanDistance))
        }
        let grid = try communicator.collectively("drawing the picture of samples") {
            communicator.isRoot
                ? ImageGrid(columns: Self.shown).render(
                    try (0..<min(samples.count, Self.shown * Self.shown)).map {
                        try sampleCollection.thumbnail($0, of: ours.file)
                    }) : nil
        }
        let seconds = ours.seconds
        return Outcome(
            metrics: metrics, classes: classes, nearest: nearest, grid: grid,
            seconds: (
                seconds.images, seconds.features + (theirs.map { $0.seconds.features } ?? 0),
                monotonicSeconds() - began
            ), features: sampleCollection.path)
    }

    /// Deletes the samples' features.
    package func removeSamples() { if communicator.isRoot { sampleCollection.remove() } }

    // MARK: Features

    private func collect(
        _ collection: FeatureCollection, _ pending: [Int], _ title: String
    ) throws -> FeatureCollection.Collected {
        let total = collection.count(of: pending)
        let progress =
            communicator.isRoot && showsProgress && total > 0
            ? CountProgress(title, unit: "images", total: total) : nil
        let collected = try collection.collect(
            pending, communicator, progress: { progress?.update(min(total, Int($0))) }, tick: tick)
        progress?.finish(total)
        return collected
    }

    /// Prints the estimated duration, from timing each part on all ranks at once.
    private func announce(_ pending: [Int], _ others: (FeatureCollection, [Int])?) throws {
        guard showsProgress else { return }
        let ours = sampleCollection.count(of: pending)
        let theirs = others.map { $0.0.count(of: $0.1) } ?? 0
        let own = try communicator.collectively("measuring the speed") {
            var seconds = 0.0
            if ours > 0 { seconds += Double(ours) * (try samples.secondsPerImage()) }
            if let others, theirs > 0 { seconds += Double(theirs) * (try others.0.images.secondsPerImage()) }
            // Samples also pass the feature network mirrored if nearest neighbours are searched.
            let passes = (others == nil ? 1 : 2) * ours + theirs
            if passes > 0 { seconds += Double(passes) * (try extractor.secondsPerImage()) }
            return seconds
        }
        let seconds = try communicator.allReduceMax(own) / Double(communicator.size)
        guard communicator.isRoot else { return }
        let kept = samples.count - ours
        printLine(
            "Evaluating \(samples.count) samples of \(samples.name)\(kept > 0 ? " (\(kept) already computed)" : "") "
                + "against \(reference.name), by \(extractor.kind.rawValue) features of \(extractor.dimension) "
                + "dimensions: about \(duration(seconds))")
    }

    // MARK: Measures

    private func distances(
        _ ours: FeatureMatrix, _ theirs: FeatureMatrix?
    ) throws -> [(name: String, value: Double)] {
        let own = try FeatureStatistics(of: ours, communicator)
        tick()
        let other: FeatureStatistics
        switch (reference, theirs) {
        case (.statistics(let statistics, _, _), _): other = statistics
        case (_, let theirs?): other = try FeatureStatistics(of: theirs, communicator)
        case (.images, nil): preconditionFailure("the reference's features were collected")
        }
        tick()
        // On one rank, since the eigendecompositions take only seconds.
        let distance = try communicator.fromRoot("comparing the statistics") {
            guard let distance = own.frechetDistance(to: other), distance.isFinite else {
                throw RunError(
                    "\(reference.name): the Fréchet distance is not a number; check the reference's statistics",
                    exitStatus: ExitStatus.numericalFault)
            }
            return distance
        }
        tick()
        var metrics = [(extractor.kind.distanceName, distance)]
        if let theirs {
            let kernel = try KernelDistance(ours, theirs, seed: seed, communicator)
            let name = extractor.kind.kernelName
            metrics += [(name, kernel.mean), ("\(name)_low", kernel.low), ("\(name)_high", kernel.high)]
            tick()
        }
        return metrics
    }

    private func neighbours(
        _ ours: FeatureCollection.Collected, _ theirs: FeatureMatrix
    ) throws -> (metrics: [(name: String, value: Double)], pairs: [Diversity.Pair]) {
        let found = try NeighbourMeasures(
            samples: ours.features, mirrored: ours.mirrored, reference: theirs, communicator, tick: tick)
        let diversity = Diversity(neighbours: found)
        let manifolds = found.manifolds
        return (
            [
                ("precision", manifolds.precision), ("recall", manifolds.recall),
                ("density", manifolds.density), ("coverage", manifolds.coverage),
                ("mean_pairwise_distance", found.meanPairwise),
                ("duplicates", Double(diversity.duplicates)),
                ("nearest_training_distance", median(found.nearestDistances)),
                ("memorised", Double(diversity.memorised)),
                ("reference_spacing", found.referenceSpacing),
            ], diversity.closest(2 * Self.shown)
        )
    }

    /// Rows of samples with their nearest training images below, mirrored if the mirrored version is closer.
    private func picture(of pairs: [Diversity.Pair], _ file: SafetensorsFile) throws -> Image? {
        guard case .images(let images) = reference else { return nil }
        var cells: [Image] = []
        for start in stride(from: 0, to: pairs.count, by: Self.shown) {
            let row = pairs[start..<min(start + Self.shown, pairs.count)]
            cells += try row.map { try sampleCollection.thumbnail($0.sample, of: file) }
            cells += try row.map { pair in
                let image = try images.images(pair.reference..<pair.reference + 1) { _ in }[0]
                return (pair.isMirrored ? image.flippedHorizontally() : image).resized(
                    width: thumbnailSide, height: thumbnailSide, filter: .area)
            }
        }
        return ImageGrid(columns: Self.shown).render(cells)
    }
}

extension FeatureCollection {
    fileprivate func withPending(_ communicator: Communicator) throws -> (FeatureCollection, [Int]) {
        (self, try pending(communicator))
    }

    /// Number of images in `shards`.
    package func count(of shards: [Int]) -> Int { shards.reduce(0) { $0 + shard($1).count } }
}

extension FeatureExtractor {
    /// Estimated seconds per image on this rank, without the time to record the tape.
    package func secondsPerImage() throws -> Double {
        let some = [Image](
            repeating: Image(width: side, height: side, red: 128, green: 128, blue: 128), count: 16)
        _ = try self(some)
        let began = monotonicSeconds()
        _ = try self(some)
        return (monotonicSeconds() - began) / 16
    }
}
