import FileFormats

/// `evaluation`: evaluates the model's samples during training, as `disttrain evaluate` does.
package struct EvaluationConfiguration: Sendable, Equatable {
    /// Minimum number of samples for a meaningful result.
    package static let minimumCount = 16

    /// Steps between two evaluations; there is also one at the end. 0 disables evaluation.
    package var every = 0
    /// Number of samples to evaluate.
    package var count = 1000
    /// Denoising steps; by default those of `sampling`.
    package var steps: Int
    /// nil selects Inception if its weights are given, otherwise the first stage's latents, otherwise pixels.
    package var features: FeatureKind?
    /// Weights of the Inception network for FID.
    package var inception: String?
    /// The reference images; nil for the training data.
    package var reference: String?

    enum Key: String, CaseIterable { case every, count, steps, features, inception, reference }

    init(config node: ConfigNode, path: [String], sampling: Int, timesteps: Int) throws(ConfigError) {
        let reader = try ConfigReader<Key>(node, path: path)
        every = try reader.read(.every, default: every)
        count = try reader.read(.count, default: count)
        steps = try reader.read(.steps, default: sampling)
        features = try reader.read(optional: .features)
        inception = try reader.read(optional: .inception)
        reference = try reader.read(optional: .reference)
        try reader.check(every >= 0, .every, "found \(every), expected 1 or more, or 0 for never")
        try reader.check(
            count >= Self.minimumCount, .count,
            "found \(count), expected \(Self.minimumCount) or more")
        try reader.check(
            (1...timesteps).contains(steps), .steps,
            "found \(steps), expected 1 to diffusion.timesteps (\(timesteps))")
        try reader.check(
            features != .inception || inception != nil, .features,
            "inception needs evaluation.inception, the weights of FID's network (docs/evaluation.md)")
    }

    var node: ConfigNode {
        .mapping([
            "every": .integer(every), "count": .integer(count), "steps": .integer(steps),
            "features": features.map { .string($0.rawValue) } ?? .null,
            "inception": inception.map { .string($0) } ?? .null,
            "reference": reference.map { .string($0) } ?? .null,
        ])
    }
}

extension FeatureKind: ConfigChoice {}

/// The features by which images are compared.
package enum FeatureKind: String, Sendable, CaseIterable {
    /// Pooled features of FID's Inception network.
    case inception
    /// The latents of the run's own first stage.
    case vae
    /// The pixels of a downscaled image.
    case pixel

    /// The name of the Fréchet distance. Only the distance of Inception features is FID; the others have
    /// different names to prevent confusion.
    package var distanceName: String { self == .inception ? "fid" : "fd_\(rawValue)" }
    /// The name of the kernel distance, by the same rule.
    package var kernelName: String { self == .inception ? "kid" : "kd_\(rawValue)" }
}
