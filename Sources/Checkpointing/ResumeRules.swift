import Foundation
import Support

/// What may change between a checkpoint and the run that goes on from it: the one table of all keys, told to users
/// in docs/resume.md.
///
/// A change is harmless where every number of the checkpoint keeps its meaning and the run goes on learning the same
/// thing: how long, how fast, on which machine, what is written. It is harmful where moments, averages or the position
/// in the data were made by the old value, or where the model would be trained for something else.
package enum ResumeRules {
    /// What a resume does about a changed key.
    package enum Effect: Sendable, Equatable {
        /// Harmless: told, and followed.
        case noted
        /// Harmful, and why: refused unless allowed by name.
        case refused(String)
        /// What no resume can follow, and why: refused always.
        case impossible(String)
    }

    /// Keys as `--set` names them; a name that ends in ".*" stands for all keys of its section.
    package static let table: KeyValuePairs<String, Effect> = [
        // Which run. Its name is the folder's, and init_from is not looked at once there is a checkpoint.
        "name": .noted,
        "seed": .refused("the order of the data, noise and dropout are drawn by it"),
        "init_from": .noted,

        // A place may change; what is there is known by its fingerprint.
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
        // No part of what the weights compute.
        "model.dropout": .noted,
        "model.sample_size": .noted,
        "model.force_upcast": .noted,
        "model.latents_mean": .noted,
        "model.latents_std": .noted,
        "model.scaling_factor": .noted,
        "model.shift_factor": .noted,

        // What is learned.
        "diffusion.timesteps": .refused(otherNoise),
        "diffusion.schedule": .refused(otherNoise),
        "diffusion.beta_start": .refused(otherNoise),
        "diffusion.beta_end": .refused(otherNoise),
        "diffusion.prediction": .refused(otherNoise),
        "diffusion.min_snr_gamma": .refused(otherLoss),
        "diffusion.clip_sample": .noted,  // Samplers alone clip.
        "loss.*": .refused(otherLoss),

        // The optimizer. The rate and its like act at each step anew; the betas are in the moments.
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

        // How long, how much at once, and where.
        "train.steps": .noted,
        "train.batch_size": .refused("the learning rate and the averages were chosen for the old one"),
        "train.micro_batch_size": .noted,
        "train.precision": .noted,  // Weights, moments and averages are fp32 always.
        "train.sharding": .noted,
        "train.reduce_dtype": .noted,
        "train.log_every": .noted,
        "train.sample_every": .noted,
        "train.checkpoint_every": .noted,
        "train.check_replicas_every": .noted,

        // What is written beside the weights.
        "checkpoint.*": .noted,
        "sampling.*": .noted,
        "evaluation.*": .noted,
        "logging.*": .noted,
    ]

    /// Keys that stand in no configuration: what is found where one points to.
    static let dataFingerprint = "data.fingerprint"
    static let firstStageFingerprint = "first_stage.fingerprint"
    static let firstStageScaling = "first_stage.scaling"

    private static let otherData = "the model was trained on other data"
    private static let otherLatents = "the model was trained on other latents"
    private static let otherTensors = "the model's tensors would not fit"
    private static let otherModel = "the weights were trained to compute something else"
    private static let otherNoise = "the model was trained for other noise"
    private static let otherLoss = "the model was trained for another loss"

    /// The rule for a key; nil where there is none.
    package static func effect(ofKey key: String) -> Effect? {
        table.first { rule in
            rule.key == key || (rule.key.hasSuffix(".*") && key.hasPrefix(rule.key.dropLast()))
        }?.value
    }

    /// The rule for a change. A key that this program does not know is of another version, which it cannot follow.
    static func effect(of change: ConfigurationChange) -> Effect {
        if ["ema.decays", "ema.sigma_rel"].contains(change.key), !change.isSubset {
            return .impossible("there is no average to go on with")
        }
        return effect(ofKey: change.key) ?? .noted
    }
}

/// Keys whose change the user has allowed: `--allow-change KEY[,KEY…]`.
package struct AllowedChanges: Sendable, Equatable {
    package static let none = AllowedChanges(names: [])

    private let names: [String]

    package var description: String { names.sorted().joined(separator: ",") }

    private init(names: [String]) { self.names = names }

    /// - Parameter texts: keys, or sections for all of their keys; several in one text are parted by commas.
    /// - Throws: `RunError` for a name that is none, with the nearest one.
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
