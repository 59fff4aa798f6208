import Communication
import FileFormats
import Foundation
import LDMModel
import TensorCore

/// What the configurations of all training runs have in common.
///
/// Each invalid entry throws a `ConfigError` with a one-line message that has file, line and key.
package protocol TrainingConfiguration: ConfigSection {
    /// The run's name, used for its folder.
    var name: String { get set }
    var seed: UInt64 { get set }
    /// Folder of a model that provides the initial weights; nil for random weights.
    var initFrom: String? { get set }
    var data: DataConfiguration { get }
    var optimizer: OptimizerConfiguration { get set }
    var ema: EMAConfiguration { get }
    var train: TrainConfiguration { get set }
    var checkpoint: CheckpointConfiguration { get set }
    var logging: LoggingConfiguration { get set }
    /// Steps between two evaluations; 0 for none.
    var evaluationInterval: Int { get }

    /// The keys of the model in a folder.
    static func modelKeys(of folder: ModelFolder) throws -> ConfigNode
    /// Sets what follows from other sections.
    ///
    /// - Parameter modelKeys: the keys that are given in `model`.
    mutating func complete(modelKeys: Set<String>)
}

extension TrainingConfiguration {
    /// Reads a YAML file and applies `--set` overrides, each `a.b=value`.
    ///
    /// - Parameters:
    ///   - initFrom: overrides the file's `init_from`.
    ///   - locate: finds the folder of the model that `init_from` names.
    package static func load(
        path: String, overrides: [String] = [], initFrom: String? = nil,
        locate: (String) throws -> ModelFolder = { ModelFolder($0) }
    ) throws(ConfigError) -> Self {
        try Self(
            yaml: ConfigurationFile.read(path), source: path, overrides: overrides, initFrom: initFrom,
            folder: (path as NSString).deletingLastPathComponent, locate: locate)
    }

    /// Parses YAML text.
    ///
    /// - Parameters:
    ///   - source: the name of the text in messages.
    ///   - folder: the base of relative paths in `model: {config: FILE.json}`.
    ///   - locate: finds the folder of the model that `init_from` names.
    package init(
        yaml: String, source: String, overrides: [String] = [], initFrom: String? = nil, folder: String = "",
        locate: (String) throws -> ModelFolder = { ModelFolder($0) }
    ) throws(ConfigError) {
        var root = try ConfigurationFile.tree(yaml, source: source, overrides: overrides, initFrom: initFrom)
        try Self.checkKeys(of: root, path: [])
        root["model"] = try ConfigurationFile.model(root, folder: folder) {
            try Self.modelKeys(of: locate($0))
        }
        try self.init(config: root, path: [])
    }

    package mutating func end(_ node: ConfigNode) {
        complete(modelKeys: Set(node["model"]?.entries?.map(\.key) ?? []))
    }

    /// The complete configuration as YAML; parsing it yields the same configuration.
    package func resolvedYAML() -> String { YAMLNode.text(node) }

    /// A hash of the resolved configuration, 16 hexadecimal digits.
    package var stableHash: String { ConfigurationFile.hash(node) }

    func checkTraining(_ reason: String, _ inChannels: Int, _ outChannels: Int) throws(ConfigError) {
        if inChannels != outChannels {
            throw ConfigError(
                .invalidValue, at: ["model", "out_channels"],
                "found \(outChannels), expected in_channels (\(inChannels)): \(reason)")
        }
        if optimizer.warmupSteps > train.steps {
            throw ConfigError(
                .invalidValue, at: ["optimizer", "warmup_steps"],
                "found \(optimizer.warmupSteps), more than train.steps (\(train.steps))")
        }
    }

    func checkImageChannels(_ inChannels: Int) throws(ConfigError) {
        guard let channels = data.channels, channels != inChannels else { return }
        throw ConfigError(
            .invalidValue, at: ["data", "channels"],
            "found \(channels), expected model.in_channels (\(inChannels)), because the model's input is images"
        )
    }

    func checkImageSize(_ size: Int, _ factor: Int) throws(ConfigError) {
        if size % factor == 0 { return }
        throw ConfigError(
            .invalidValue, at: ["data", "size"],
            "found \(size), expected a multiple of \(factor), by which the model's levels divide it")
    }
}

/// The keys and sections that all training runs share.
extension ConfigKey where Section: TrainingConfiguration {
    static var runName: ConfigKey {
        .init(
            "name", \.name,
            .where("letters, digits, '_', '-' and '.' (it names a folder)") { name in
                !name.isEmpty && name.count <= 128 && name.first != "." && name.first != "-"
                    && name.utf8.allSatisfy { byte in
                        (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20)
                            || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
                            || "._-".utf8.contains(byte)
                    }
            }, .harmless, "The run's name; the default folder is runs/NAME.", isRequired: true)
    }

    static var seed: ConfigKey {
        .init(
            "seed", \.seed, .harmful("it determines the order of the data, the noise and dropout"),
            "Seed of all random numbers.")
    }

    static var optimizer: ConfigKey {
        .init(section: "optimizer", \.optimizer, "AdamW and its learning rate.")
    }

    static var train: ConfigKey {
        .init(
            section: "train", \.train, "Duration, batch sizes, and intervals of periodic actions.",
            isRequired: true)
    }

    static var checkpoint: ConfigKey {
        .init(section: "checkpoint", \.checkpoint, "Which checkpoints are kept.")
    }

    static var logging: ConfigKey {
        .init(
            section: "logging", \.logging,
            "Outputs for metrics in addition to metrics.jsonl, which is always written.")
    }

    // It has no effect once there is a checkpoint.
    static var initFrom: ConfigKey {
        .init(
            "init_from", \.initFrom, .where("a model's folder, or null") { !$0.isEmpty }, .harmless,
            "Folder of a model that provides the initial weights; null for random weights.",
            omitted: { $0.initFrom == nil })
    }
}

extension Configuration {
    package var evaluationInterval: Int { evaluation.every }
}

extension AutoencoderConfiguration {
    package var evaluationInterval: Int { 0 }
}

// Values that runs derive from their configurations.

extension Communicator {
    /// The type for `precision: auto` in this job: bf16 only if every rank's processor has native bf16
    /// multiplication. Collective.
    package func automaticDType() throws(CommunicationError) -> DType {
        try allAgree(Processor.hasNativeBFloat16) ? .bfloat16 : .float32
    }
}

extension TrainConfiguration {
    /// The type for `precision`. For `auto` it is bf16 if every rank's processor has native bf16
    /// multiplication; before `agreeOnPrecision`, only this rank's processor is considered.
    package var dtype: DType {
        switch precision {
        case .fp32: return .float32
        case .bf16: return .bfloat16
        case .auto: return automaticDType ?? (Processor.hasNativeBFloat16 ? .bfloat16 : .float32)
        }
    }

    /// The resolved precision, as a configuration names it.
    package var precisionName: String { dtype == .bfloat16 ? "bf16" : "fp32" }

    /// Lets `auto` name the same type on every rank. Collective.
    package mutating func agreeOnPrecision(_ communicator: Communicator) throws(CommunicationError) {
        automaticDType = try communicator.automaticDType()
    }
}

extension Configuration {
    /// The settings of sample grids. The seed is fixed, so a run's grids use the same noise at every step.
    package var samplingSettings: SamplingSettings {
        var settings = SamplingSettings(
            method: sampling.sampler, steps: sampling.steps, eta: sampling.eta,
            spacing: sampling.spacing, karras: sampling.karras ? true : nil, seed: seed)
        settings.classes.guidanceScale = sampling.guidanceScale
        return settings
    }
}
