import Foundation
import Support

/// The configuration changes allowed when a run resumes from a checkpoint: the only table of all keys,
/// documented for users in docs/resume.md.
///
/// A change is harmless if all values in the checkpoint keep their meaning and the run continues to learn the
/// same target, for example its length, speed, hosts or outputs. It is harmful if moments, averages or the
/// position in the data depend on the old value, or if the model would be trained for another target.
package enum ResumeRules {
    /// How a resume handles a changed key.
    package enum Effect: Sendable, Equatable {
        /// Harmless: reported and accepted.
        case noted
        /// Harmful, with the reason: rejected unless the user allows the key by name.
        case refused(String)
        /// Cannot be resumed, with the reason: always rejected.
        case impossible(String)
    }

    /// Keys in the form that `--set` accepts; a name that ends in ".*" stands for all keys of the section.
    package static let table: KeyValuePairs<String, Effect> = [
        // The run. Its name identifies the folder, and init_from has no effect once there is a checkpoint.
        "name": .noted,
        "seed": .refused("the order of the data, noise and dropout are drawn by it"),
        "init_from": .noted,

        // A path may change; the contents are identified by their fingerprint.
        "data.path": .noted,
        "data.flip": .refused(otherData),
        "data.size": .refused(otherData),
        "data.count": .refused(otherData),
        dataFingerprint: .refused(otherData),
        "first_stage.path": .noted,
        firstStageFingerprint: .refused(otherLatents),
        firstStageScaling: .refused(otherLatents),

        // The model: U-Net and autoencoder.
        "model.block_out_channels": .impossible(otherTensors),
        "model.down_block_types": .impossible(otherTensors),
        "model.up_block_types": .impossible(otherTensors),
        "model.mid_block_type": .impossible(otherTensors),
        "model.layers_per_block": .impossible(otherTensors),
        "model.in_channels": .impossible(otherTensors),
        "model.out_channels": .impossible(otherTensors),
        "model.latent_channels": .impossible(otherTensors),
        "model.add_attention": .impossible(otherTensors),
        "model.mid_block_add_attention": .impossible(otherTensors),
        "model.use_quant_conv": .impossible(otherTensors),
        "model.use_post_quant_conv": .impossible(otherTensors),
        "model.resnet_time_scale_shift": .impossible(otherTensors),
        "model.time_embedding_dim": .impossible(otherTensors),
        "model.time_embedding_type": .impossible(otherTensors),
        "model.class_embed_type": .impossible(otherTensors),
        "model.num_class_embeds": .impossible(otherTensors),
        "model.num_train_timesteps": .impossible(otherTensors),
        "model.downsample_type": .impossible(otherTensors),
        "model.upsample_type": .impossible(otherTensors),
        "model.act_fn": .refused(otherModel),
        "model.attention_head_dim": .refused(otherModel),
        "model.attn_norm_num_groups": .refused(otherModel),
        "model.center_input_sample": .refused(otherModel),
        "model.downsample_padding": .refused(otherModel),
        "model.flip_sin_to_cos": .refused(otherModel),
        "model.freq_shift": .refused(otherModel),
        "model.mid_block_scale_factor": .refused(otherModel),
        "model.norm_eps": .refused(otherModel),
        "model.norm_num_groups": .refused(otherModel),
        // These keys do not affect what the weights compute.
        "model.dropout": .noted,
        "model.sample_size": .noted,
        "model.force_upcast": .noted,
        "model.latents_mean": .noted,
        "model.latents_std": .noted,
        "model.scaling_factor": .noted,
        "model.shift_factor": .noted,

        // The training target.
        "diffusion.timesteps": .refused(otherNoise),
        "diffusion.schedule": .refused(otherNoise),
        "diffusion.beta_start": .refused(otherNoise),
        "diffusion.beta_end": .refused(otherNoise),
        "diffusion.prediction": .refused(otherNoise),
        "diffusion.min_snr_gamma": .refused(otherLoss),
        "diffusion.clip_sample": .noted,  // Only samplers clip.
        "loss.*": .refused(otherLoss),

        // The optimizer. The learning rate and similar keys take effect anew at each step; the betas are part
        // of the moments.
        "optimizer.learning_rate": .noted,
        "optimizer.warmup_steps": .noted,
        "optimizer.schedule": .noted,
        "optimizer.min_learning_rate": .noted,
        "optimizer.eps": .noted,
        "optimizer.weight_decay": .noted,
        "optimizer.clip_norm": .noted,
        "optimizer.betas": .refused("the moments are averages by the old ones"),
        "ema.decays": .refused("averages of the checkpoint would be dropped"),
        "ema.warmup": .refused("the averages were made by the old one"),
        "ema.sigma_rel": .refused("averages of the checkpoint would be dropped"),
        "ema.snapshot_every": .noted,

        // Duration, batch size and execution.
        "train.steps": .noted,
        "train.batch_size": .refused("the learning rate and the averages were chosen for the old one"),
        "train.micro_batch_size": .noted,
        "train.precision": .noted,  // Weights, moments and averages are always fp32.
        "train.sharding": .noted,
        "train.reduce_dtype": .noted,
        "train.log_every": .noted,
        "train.sample_every": .noted,
        "train.checkpoint_every": .noted,
        "train.check_replicas_every": .noted,

        // Outputs other than the weights.
        "checkpoint.*": .noted,
        "sampling.*": .noted,
        "evaluation.*": .noted,
        "logging.*": .noted,
    ]

    /// Keys that are not in the configuration: properties of the data and first stage that it refers to.
    static let dataFingerprint = "data.fingerprint"
    static let firstStageFingerprint = "first_stage.fingerprint"
    static let firstStageScaling = "first_stage.scaling"

    private static let otherData = "the model was trained on other data"
    private static let otherLatents = "the model was trained on other latents"
    private static let otherTensors = "the model's tensors would not fit"
    private static let otherModel = "the weights were trained to compute something else"
    private static let otherNoise = "the model was trained for other noise"
    private static let otherLoss = "the model was trained for another loss"

    /// The rule for a key; nil if there is none.
    package static func effect(ofKey key: String) -> Effect? {
        table.first { rule in
            rule.key == key || (rule.key.hasSuffix(".*") && key.hasPrefix(rule.key.dropLast()))
        }?.value
    }

    /// The rule for a change. A key without a rule comes from another version of this program and has no
    /// effect in this one, so its change is only reported.
    static func effect(of change: ConfigurationChange) -> Effect {
        if ["ema.decays", "ema.sigma_rel"].contains(change.key), !change.isSubset {
            return .impossible("there is no average to continue")
        }
        return effect(ofKey: change.key) ?? .noted
    }
}

/// Keys that the user allows to change: `--allow-change KEY[,KEY…]`.
package struct AllowedChanges: Sendable, Equatable {
    package static let none = AllowedChanges(names: [])

    private let names: [String]

    package var description: String { names.sorted().joined(separator: ",") }

    private init(names: [String]) { self.names = names }

    /// - Parameter texts: keys, or sections for all of their keys; one text can contain several, separated by
    ///   commas.
    /// - Throws: `RunError` for an unknown name, with the most similar one.
    package init(_ texts: [String]) throws(RunError) {
        names = texts.flatMap { $0.split(separator: ",") }.map {
            String($0).trimmingCharacters(in: .whitespaces)
        }
        for name in names where ResumeRules.effect(ofKey: name) == nil && !Self.isSection(name) {
            let keys = ResumeRules.table.map(\.key).filter { !$0.hasSuffix(".*") }
            let hint = nearestName(to: name, among: keys).map { "; did you mean '\($0)'?" } ?? ""
            throw RunError("--allow-change \(name): is no key of the configuration\(hint)")
        }
    }

    private static func isSection(_ name: String) -> Bool {
        ResumeRules.table.contains { $0.key.hasPrefix("\(name).") }
    }

    func contains(_ key: String) -> Bool { names.contains { key == $0 || key.hasPrefix("\($0).") } }
}
