import Communication
import Configuration
import Records

// K: classes.

/// Compares samples and reference within each class that both have. Only the kernel distance is unbiased for the few
/// images of a class; the Fréchet distance is computed where a class has more samples than the features have
/// dimensions.
struct ClassMeasures {
    let classes: [EvaluationResult.ClassResult]

    /// nil if samples or reference have no classes, or no class has enough images in both. Collective.
    ///
    /// - Parameters:
    ///   - seed: seed for drawing the subsets of the kernel distance.
    ///   - tick: called after each class.
    init?(
        _ samples: (images: any EvaluationImages, features: FeatureMatrix),
        _ reference: (images: any EvaluationImages, features: FeatureMatrix), kind: FeatureKind, seed: UInt64,
        _ communicator: Communicator, tick: () -> Void
    ) throws {
        let ours = Self.indices(samples.images)
        guard !ours.isEmpty else { return nil }
        let theirs = Self.indices(reference.images)
        var classes: [EvaluationResult.ClassResult] = []
        for name in ours.keys.sorted() {
            let (own, other) = (ours[name] ?? [], theirs[name] ?? [])
            guard min(own.count, other.count) >= EvaluationConfiguration.minimumCount else { continue }
            let (x, y) = try (samples.features.subset(own), reference.features.subset(other))
            var metrics = [
                (kind.kernelName, try KernelDistance(x, y, seed: seed, communicator).mean)
            ]
            if min(own.count, other.count) > x.dimension {
                let (p, q) = try (
                    FeatureStatistics(of: x, communicator), FeatureStatistics(of: y, communicator)
                )
                let distance = try communicator.fromRoot("comparing the statistics of \(name)") {
                    p.frechetDistance(to: q) ?? .nan
                }
                metrics.append((kind.distanceName, distance))
            }
            classes.append(.init(name: name, count: own.count, metrics: metrics))
            tick()
        }
        guard !classes.isEmpty else { return nil }
        self.classes = classes
    }

    /// The indices of each class's images.
    private static func indices(_ images: any EvaluationImages) -> [String: [Int]] {
        Dictionary(grouping: (images.classNames() ?? []).enumerated(), by: \.element)
            .mapValues { $0.map(\.offset) }
    }

    /// The mean over the classes of the kernel distance.
    var meanKernelDistance: Double {
        classes.reduce(0) { $0 + ($1.metrics.first?.value ?? 0) } / Double(classes.count)
    }
}
