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
package struct TrainConfiguration: Sendable, Equatable {
    package var steps: Int
    /// Images per step over all ranks.
    package var batchSize: Int
    /// Images per forward and backward pass on a rank; nil for the rank's whole share. Smaller values only
    /// save memory.
    package var microBatchSize: Int?
    package var precision = Precision.auto
    /// The type that `auto` selects, once the ranks have agreed on it; not serialized.
    var automaticDType: DType?
    package var sharding = Sharding.optimizer
    /// The type of gradients in transfer between ranks.
    package var reduceDType = ReduceDType.fp32
    /// Steps between two metrics lines.
    package var logEvery = 50
    /// Steps between two sample grids; 0 for none.
    package var sampleEvery = 1000
    /// Steps between two checkpoints; 0 for only one at the end.
    package var checkpointEvery = 1000
    /// Steps between two comparisons of all ranks' weights; 0 for none.
    package var checkReplicasEvery = 1000

    enum Key: String, CaseIterable {
        case steps
        case batchSize = "batch_size"
        case microBatchSize = "micro_batch_size"
        case precision, sharding
        case reduceDType = "reduce_dtype"
        case logEvery = "log_every"
        case sampleEvery = "sample_every"
        case checkpointEvery = "checkpoint_every"
        case checkReplicasEvery = "check_replicas_every"
    }

    init(config node: ConfigNode, path: [String]) throws(ConfigError) {
        let reader = try ConfigReader<Key>(node, path: path)
        steps = try reader.read(required: .steps)
        batchSize = try reader.read(required: .batchSize)
        microBatchSize = try reader.read(optional: .microBatchSize)
        precision = try reader.read(.precision, default: precision)
        sharding = try reader.read(.sharding, default: sharding)
        reduceDType = try reader.read(.reduceDType, default: reduceDType)
        logEvery = try reader.read(.logEvery, default: logEvery)
        sampleEvery = try reader.read(.sampleEvery, default: sampleEvery)
        checkpointEvery = try reader.read(.checkpointEvery, default: checkpointEvery)
        checkReplicasEvery = try reader.read(.checkReplicasEvery, default: checkReplicasEvery)
        try reader.check(steps >= 1, .steps, "found \(steps), expected 1 or more")
        try reader.check(
            (1...1 << 24).contains(batchSize), .batchSize, "found \(batchSize), expected 1 to \(1 << 24)")
        if let size = microBatchSize {
            try reader.check(
                (1...batchSize).contains(size), .microBatchSize,
                "found \(size), expected 1 to batch_size (\(batchSize)), or null for a rank's whole share")
        }
        try reader.check(logEvery >= 1, .logEvery, "found \(logEvery), expected 1 or more")
        for (key, every) in [
            (Key.sampleEvery, sampleEvery), (.checkpointEvery, checkpointEvery),
            (.checkReplicasEvery, checkReplicasEvery),
        ] {
            try reader.check(every >= 0, key, "found \(every), expected 1 or more, or 0 for never")
        }
    }

    var node: ConfigNode {
        .mapping([
            "steps": .integer(steps), "batch_size": .integer(batchSize),
            "micro_batch_size": .integer(microBatchSize),
            "precision": .string(precision.rawValue), "sharding": .string(sharding.rawValue),
            "reduce_dtype": .string(reduceDType.rawValue), "log_every": .integer(logEvery),
            "sample_every": .integer(sampleEvery),
            "checkpoint_every": .integer(checkpointEvery),
            "check_replicas_every": .integer(checkReplicasEvery),
        ])
    }
}

/// `checkpoint`: checkpoint retention, and whether saves are asynchronous.
package struct CheckpointConfiguration: Sendable, Equatable {
    /// Number of newest checkpoints to keep.
    package var keepLast = 3
    /// Checkpoints at multiples of this step are never deleted; nil for none.
    package var keepEvery: Int?
    /// Number of checkpoints with the lowest training loss to keep, regardless of age.
    package var keepBest = 0
    /// Seconds for which the final save of a run is retried after a failure, before the run ends with exit
    /// code 74. During training, failed saves are retried without limit.
    package var saveTimeout = 600.0
    /// Whether a checkpoint is written while training continues (`async` in the file).
    package var isAsync = false

    enum Key: String, CaseIterable {
        case keepLast = "keep_last"
        case keepEvery = "keep_every"
        case keepBest = "keep_best"
        case saveTimeout = "save_timeout"
        case isAsync = "async"
    }

    init(config node: ConfigNode, path: [String]) throws(ConfigError) {
        let reader = try ConfigReader<Key>(node, path: path)
        keepLast = try reader.read(.keepLast, default: keepLast)
        keepEvery = try reader.read(optional: .keepEvery)
        keepBest = try reader.read(.keepBest, default: keepBest)
        saveTimeout = try reader.read(.saveTimeout, default: saveTimeout)
        isAsync = try reader.read(.isAsync, default: isAsync)
        if isAsync {
            throw ConfigError(
                .unsupported, at: reader.path(of: .isAsync),
                "is not yet available; leave it out, training then waits for each checkpoint",
                location: reader.child(.isAsync)?.location)
        }
        try reader.check(keepLast >= 1, .keepLast, "found \(keepLast), expected 1 or more")
        try reader.check(keepBest >= 0, .keepBest, "found \(keepBest), expected 1 or more, or 0 for none")
        try reader.check(
            saveTimeout >= 0, .saveTimeout, "found \(saveTimeout), expected a number of seconds, 0 or more")
        if let every = keepEvery {
            try reader.check(every >= 1, .keepEvery, "found \(every), expected 1 or more, or null for none")
        }
    }

    var node: ConfigNode {
        var node = ConfigNode.mapping([
            "keep_last": .integer(keepLast), "keep_every": .integer(keepEvery), "async": .bool(isAsync),
        ])
        // Omitted if unused, so that configurations from before these keys existed keep their hash.
        if keepBest > 0 { node["keep_best"] = .integer(keepBest) }
        if saveTimeout != 600 { node["save_timeout"] = .number(saveTimeout) }
        return node
    }
}

/// The sampler for a trained model.
package enum SamplerKind: String, ConfigChoice {
    case ddim, ddpm
}

/// `sampling`: the grids made during training, and the defaults of `disttrain sample`.
package struct SamplingConfiguration: Sendable, Equatable {
    /// Number of samples in a grid.
    package var count = 64
    /// Denoising steps.
    package var steps = 50
    /// η of DDIM: 0 is deterministic, 1 is ancestral.
    package var eta = 0.0
    package var spacing = TimestepSpacing.leading
    package var sampler = SamplerKind.ddim

    enum Key: String, CaseIterable { case count, steps, eta, spacing, sampler }

    init(config node: ConfigNode, path: [String], timesteps: Int) throws(ConfigError) {
        let reader = try ConfigReader<Key>(node, path: path)
        count = try reader.read(.count, default: count)
        steps = try reader.read(.steps, default: min(steps, timesteps))
        eta = try reader.read(.eta, default: eta)
        spacing = try reader.read(.spacing, default: spacing)
        sampler = try reader.read(.sampler, default: sampler)
        try reader.check(count >= 1, .count, "found \(count), expected 1 or more")
        try reader.check(
            (1...timesteps).contains(steps), .steps,
            "found \(steps), expected 1 to diffusion.timesteps (\(timesteps))")
        try reader.check(eta >= 0 && eta <= 1, .eta, "found \(eta), expected 0 to 1")
        try reader.check(sampler == .ddim || eta == 0, .eta, "is for sampler: ddim alone")
    }

    var node: ConfigNode {
        .mapping([
            "count": .integer(count), "steps": .integer(steps), "eta": .number(eta),
            "spacing": .string(spacing.rawValue), "sampler": .string(sampler.rawValue),
        ])
    }
}

/// `logging`: outputs for metrics in addition to metrics.jsonl, which is always written.
package struct LoggingConfiguration: Sendable, Equatable {
    /// Write an event file to the run's `tensorboard/`.
    package var tensorboard = true
    /// Write an offline Weights & Biases run to the run's `wandb/` (in the file: `offline` or `off`).
    package var wandb = false

    enum Key: String, CaseIterable { case tensorboard, wandb }

    init(config node: ConfigNode, path: [String]) throws(ConfigError) {
        let reader = try ConfigReader<Key>(node, path: path)
        tensorboard = try reader.read(.tensorboard, default: tensorboard)
        // In YAML 1.2, `off`, `offline` and `online` are strings; false also means off.
        guard let value = reader.child(.wandb), value.value != .bool(false), value.value != .null else {
            return
        }
        let mode = try String(config: value, path: reader.path(of: .wandb))
        if mode == "online" {
            throw ConfigError(
                .unsupported, at: reader.path(of: .wandb),
                "cannot be online; use offline, and upload the run by `wandb sync`",
                location: value.location)
        }
        try reader.check(
            ["off", "offline"].contains(mode), .wandb, "found '\(mode)', expected one of off, offline")
        wandb = mode == "offline"
    }

    /// Whether any output uses gradient norms by block.
    package var recordsBlocks: Bool { tensorboard || wandb }

    var node: ConfigNode {
        .mapping(["tensorboard": .bool(tensorboard), "wandb": .string(wandb ? "offline" : "off")])
    }
}
