import Communication
import FileFormats
import LDMModel
import TensorCore

/// The type of activations and compute weights. Master weights and optimizer state are always fp32.
package enum Precision: String, ConfigChoice {
    case fp32, bf16
    /// bf16 if the processor has native bf16 multiplication, otherwise fp32.
    case auto
}

/// The type of gradients in transfer between ranks. Sums are always computed in fp32.
package enum ReduceDType: String, ConfigChoice {
    case fp32
    /// Halves the bytes; each contribution is rounded once.
    case bf16

    package var dtype: DType { self == .bf16 ? .bfloat16 : .float32 }
}

/// `train`: duration, batch sizes, and intervals of periodic actions.
package struct TrainConfiguration: ConfigSection {
    package var steps = 100_000
    package var batchSize = 64
    /// nil for the rank's whole share.
    package var microBatchSize: Int?
    package var precision = Precision.auto
    /// The type that `auto` selects, once the ranks have agreed on it; not serialized.
    var automaticDType: DType?
    package var sharding = Sharding.optimizer
    package var reduceDType = ReduceDType.fp32
    package var logEvery = 50
    package var sampleEvery = 1000
    package var checkpointEvery = 1000
    package var checkReplicasEvery = 1000

    package init() {}

    package static var keys: [ConfigKey<TrainConfiguration>] {
        let orNever = "1 or more, or 0 for never"
        return [
            .init(
                "steps", \.steps, .atLeast(1), .harmless, "Number of steps of the whole run.",
                isRequired: true),
            .init(
                "batch_size", \.batchSize, .within(1...1 << 24),
                .harmful("the learning rate and the averages were chosen for the old one"),
                "Images per step over all ranks.", isRequired: true),
            .init(
                "micro_batch_size", \.microBatchSize, .atLeast(1), .harmless,
                "Images per forward and backward pass on a rank; smaller values only save memory.",
                defaultText: "the rank's whole share"),
            // Weights, moments and averages are always fp32.
            .init(
                "precision", \.precision, .harmless,
                "Type of activations and compute weights; auto is bf16 where every rank's processor multiplies it"
                    + " natively."),
            .init(
                "sharding", \.sharding, .harmless,
                "Whether the optimizer state is divided among the ranks (ZeRO) or replicated."),
            .init("reduce_dtype", \.reduceDType, .harmless, "Type of gradients in transfer between ranks."),
            .init("log_every", \.logEvery, .atLeast(1), .harmless, "Steps between two metrics lines."),
            .init(
                "sample_every", \.sampleEvery, .atLeast(0, orNever), .harmless,
                "Steps between two grids of samples."),
            .init(
                "checkpoint_every", \.checkpointEvery, .atLeast(0, orNever), .harmless,
                "Steps between two checkpoints; there is always one at the end."),
            .init(
                "check_replicas_every", \.checkReplicasEvery, .atLeast(0, orNever), .harmless,
                "Steps between two comparisons of all ranks' weights."),
        ]
    }

    package func check() throws(ConfigError) {
        try require(
            microBatchSize ?? 1 <= batchSize, "micro_batch_size",
            "found \(microBatchSize ?? 1), expected 1 to batch_size (\(batchSize)), or null for a rank's whole share"
        )
    }
}

/// `checkpoint`: which checkpoints are kept.
package struct CheckpointConfiguration: ConfigSection {
    package var keepLast = 3
    package var keepEvery: Int?
    package var keepBest = 0
    package var saveTimeout = 600.0
    /// Read for compatibility; always written as false.
    private var isAsync: Bool {
        get { false }
        set {}
    }

    package init() {}

    package static var keys: [ConfigKey<CheckpointConfiguration>] {
        [
            .init("keep_last", \.keepLast, .atLeast(1), .harmless, "Number of newest checkpoints to keep."),
            .init(
                "keep_every", \.keepEvery, .atLeast(1), .harmless,
                "Checkpoints at multiples of this step are never deleted; null for none."),
            .init(
                "async", \.isAsync, .harmless,
                "Has no effect, and is accepted for old files: checkpoints are always written while training continues."
            ),
            .init(
                "keep_best", \.keepBest, .atLeast(0, "1 or more, or 0 for none"), .harmless,
                "Number of checkpoints with the lowest training loss to keep, regardless of age.",
                omitted: { $0.keepBest == 0 }),
            .init(
                "save_timeout", \.saveTimeout, .atLeast(0), .harmless,
                "Seconds for which the last save of a run is retried before it ends with exit code 74.",
                omitted: { $0.saveTimeout == 600 }),
        ]
    }
}

/// `sampling`: the grids made during training, and the defaults of `disttrain sample`.
package struct SamplingConfiguration: ConfigSection {
    package var count = 64
    package var steps = 50
    package var eta = 0.0
    package var spacing = TimestepSpacing.leading
    package var sampler = SamplerKind.ddim
    package var guidanceScale = 1.0
    package var karras = false

    package init() {}

    /// - Parameter endsInNoise: whether the last timestep is pure noise, from which sampling must then start.
    init(timesteps: Int, endsInNoise: Bool) {
        steps = min(steps, timesteps)
        if endsInNoise { spacing = .trailing }
    }

    package static var keys: [ConfigKey<SamplingConfiguration>] {
        [
            .init("count", \.count, .atLeast(1), .harmless, "Number of samples in a grid."),
            .init("steps", \.steps, .atLeast(1), .harmless, "Denoising steps."),
            .init("eta", \.eta, .within(0...1), .harmless, "η of DDIM: 0 is deterministic, 1 is ancestral."),
            .init(
                "spacing", \.spacing, .harmless, "Which of the training timesteps the sampler visits.",
                defaultText: "trailing with diffusion.rescale_betas_zero_snr, otherwise leading"),
            .init("sampler", \.sampler, .harmless, "The sampler."),
            .init(
                "guidance_scale", \.guidanceScale, .atLeast(0), .harmless,
                "Scale of classifier-free guidance for a class-conditional model; 1 for none.",
                omitted: { $0.guidanceScale == 1 }),
            .init(
                "karras", \.karras, .harmless,
                "Space the noise levels as Karras et al. (2022); for dpmpp, unipc, heun and euler.",
                omitted: { !$0.karras }),
        ]
    }

    package func check() throws(ConfigError) {
        try require(sampler == .ddim || eta == 0, "eta", "only applies to sampler: ddim")
        try require(
            !karras || sampler.hasKarrasSigmas, "karras", "does not apply to sampler: \(sampler.rawValue)")
    }
}

/// `evaluation`: evaluates the model's samples during training, as `disttrain evaluate` does.
package struct EvaluationConfiguration: ConfigSection {
    /// Minimum number of samples for a meaningful result.
    package static let minimumCount = 16

    package var every = 0
    package var count = 1000
    package var steps = 50
    /// nil selects Inception if its weights are given, otherwise the first stage's latents, otherwise pixels.
    package var features: FeatureKind?
    package var inception: String?
    package var reference: String?

    package init() {}

    init(steps: Int) { self.steps = steps }

    package static var keys: [ConfigKey<EvaluationConfiguration>] {
        [
            .init(
                "every", \.every, .atLeast(0, "1 or more, or 0 for never"), .harmless,
                "Steps between two evaluations; there is also one at the end."),
            .init("count", \.count, .atLeast(minimumCount), .harmless, "Number of samples to evaluate."),
            .init(
                "steps", \.steps, .atLeast(1), .harmless, "Denoising steps.", defaultText: "sampling.steps"),
            .init(
                "features", \.features, .harmless, "The features by which images are compared.",
                defaultText: "inception if its weights are given, else vae, else pixel"),
            .init(
                "inception", \.inception, .harmless,
                "Weights of the Inception network for FID (docs/evaluation.md)."),
            .init("reference", \.reference, .harmless, "The reference images; null for the training data."),
        ]
    }

    package func check() throws(ConfigError) {
        try require(
            features != .inception || inception != nil, "features",
            "inception requires evaluation.inception, the weights of FID's network (docs/evaluation.md)")
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

/// Whether a Weights & Biases run is written.
package enum WandBMode: String, ConfigValue, CaseIterable {
    case off, offline

    package init(config node: ConfigNode, path: [String]) throws(ConfigError) {
        // In YAML 1.2, `off` is a string; false and null have the same meaning.
        if node.value == .bool(false) || node.value == .null {
            self = .off
            return
        }
        let word = try String(config: node, path: path)
        if word == "online" {
            throw ConfigError(
                .unsupported, at: path, "cannot be online; use offline, and upload the run with `wandb sync`",
                location: node.location)
        }
        guard let mode = WandBMode(rawValue: word) else {
            throw ConfigError(
                .invalidValue, at: path, "found \(node.found), expected \(Self.typeName)",
                location: node.location)
        }
        self = mode
    }

    package var node: ConfigNode { .string(rawValue) }
    package static var typeName: String { "one of off, offline" }
}

/// `logging`: outputs for metrics in addition to metrics.jsonl, which is always written.
package struct LoggingConfiguration: ConfigSection {
    package var tensorboard = true
    package var wandb = WandBMode.off

    package init() {}

    package static var keys: [ConfigKey<LoggingConfiguration>] {
        [
            .init("tensorboard", \.tensorboard, .harmless, "Write an event file to the run's tensorboard/."),
            .init("wandb", \.wandb, .harmless, "Write an offline Weights & Biases run to the run's wandb/."),
        ]
    }

    /// Whether any output uses gradient norms by block.
    package var recordsBlocks: Bool { tensorboard || wandb == .offline }
}
