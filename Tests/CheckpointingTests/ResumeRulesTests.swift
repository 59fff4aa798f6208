import Checkpointing
import Communication
import Configuration
import FileFormats
import Foundation
import LDMModel
import Support
import Testing
import TestSupport

/// A configuration that contains every key.
private let unet = """
    name: tiny
    seed: 3
    init_from: models/faces
    data: {path: synthetic-faces, size: 32, count: 100}
    first_stage: {path: models/vae}
    model: {sample_size: 32, in_channels: 4, out_channels: 4, block_out_channels: [8, 16], norm_num_groups: 4,
            down_block_types: [DownBlock2D, DownBlock2D], up_block_types: [UpBlock2D, UpBlock2D]}
    optimizer: {learning_rate: 1e-3, betas: [0.9, 0.99]}
    ema: {decays: [0.99, 0.999]}
    train: {steps: 100, batch_size: 8}
    evaluation: {every: 10}
    """
private let autoencoder = """
    name: vae
    data: {path: photos, size: 32}
    model: {block_out_channels: [8, 16], latent_channels: 4, norm_num_groups: 4,
            down_block_types: [DownEncoderBlock2D, DownEncoderBlock2D],
            up_block_types: [UpDecoderBlock2D, UpDecoderBlock2D]}
    train: {steps: 100, batch_size: 8}
    """

private func identity(
    _ yaml: String, _ overrides: [String] = [], folder: String = "unet", data: String = "d1",
    stage: String = "s1", scale: Double = 0.18
) throws -> RunIdentity {
    let text =
        folder == "vae"
        ? try AutoencoderConfiguration(yaml: yaml, source: "test", overrides: overrides).resolvedYAML()
        : try Configuration(yaml: yaml, source: "test", overrides: overrides).resolvedYAML()
    return RunIdentity(
        name: "tiny", seed: 3, configuration: text, modelFolder: folder, modelConfig: "{}",
        datasetFingerprint: data,
        firstStage: FirstStageReference(path: "models/vae", weightsHash: stage, scalingFactor: scale),
        programVersion: "0.1.0")
}

private func changes(_ overrides: String..., allowed: [String] = []) throws -> [String] {
    try ConfigurationChanges(from: identity(unet), to: identity(unet, overrides)).check(
        AllowedChanges(allowed), of: "step-10")
}

@Suite struct ResumeRulesTests {
    /// A resumed run must not silently change its meaning: these keys are never accepted without a question.
    @Test func keysThatDetermineTheResultAreNotHarmless() throws {
        let harmless = [
            "model.dropout", "model.sample_size", "model.force_upcast", "model.scaling_factor",
            "model.shift_factor", "model.latents_mean", "model.latents_std", "diffusion.clip_sample",
            "model._label_names", "data.path",
            "first_stage.path", "ema.snapshot_every",
        ]
        for (key, effect) in ResumeRules.effects
        where ["model", "diffusion", "data", "first_stage", "loss", "ema", "seed"].contains(
            String(key.split(separator: ".")[0]))
        {
            #expect((effect == .harmless) == harmless.contains(key), "\(key)")
        }
        #expect(ResumeRules.effects["train.step"] == nil)
        #expect(ResumeRules.effects["optimizer.betas"] != .harmless)
        #expect(ResumeRules.effects["train.batch_size"] != .harmless)
    }

    @Test func harmlessChangesAreTold() throws {
        #expect(try changes() == [])
        #expect(
            try changes("train.steps=200", "optimizer.learning_rate=5e-4", "train.precision=bf16") == [
                "optimizer.learning_rate was 0.001, is 0.0005", "train.steps was 100, is 200",
                "train.precision was auto, is bf16",
            ])
        #expect(try changes("init_from=null") == ["init_from was models/faces, is not given"])
        #expect(try changes("data.path=/elsewhere", "data.count=null", allowed: ["data.count"]).count == 2)
    }

    @Test func harmfulChangesAreRefusedUnlessAllowed() throws {
        let error = #expect(throws: RunError.self) {
            try changes("optimizer.betas=[0.9, 0.999]", "train.batch_size=16", "train.log_every=5")
        }
        #expect(error?.exitStatus == ExitStatus.usage)
        #expect(
            error?.message == "step-10: was written with a different configuration: "
                + "optimizer.betas was [0.9, 0.99], is [0.9, 0.999] (the moments were accumulated with the old ones); "
                + "train.batch_size was 8, is 16 (the learning rate and the averages were chosen for the old one); undo "
                + "this, or accept it with --allow-change optimizer.betas,train.batch_size")
        // Allowing one of two changes is not enough.
        #expect(throws: RunError.self) {
            try changes("seed=4", "diffusion.schedule=linear", allowed: ["seed"])
        }
        for allowed in [["seed,diffusion"], ["seed", "diffusion.schedule, train.batch_size"]] {
            #expect(
                try changes("seed=4", "diffusion.schedule=linear", allowed: allowed) == [
                    "seed was 3, is 4 (accepted by --allow-change)",
                    "diffusion.schedule was squaredcos_cap_v2, is linear (accepted by --allow-change)",
                ])
        }
    }

    @Test func otherTensorsAreRefusedAlways() throws {
        for override in [
            "model.layers_per_block=1", "ema.decays=[0.99, 0.999, 0.5]", "ema.sigma_rel=[0.05, 0.1]",
            "model.resnet_time_scale_shift=scale_shift",
        ] {
            let error = #expect(throws: RunError.self) { try changes(override, allowed: ["model", "ema"]) }
            #expect(error?.message.hasSuffix("or start a new run with another --output") == true)
        }
        // One average fewer can be accepted.
        #expect(throws: RunError.self) { try changes("ema.decays=[0.99]") }
        #expect(try changes("ema.decays=[0.99]", allowed: ["ema.decays"]).count == 1)
    }

    @Test func whatWasTrainedOnIsComparedByItsContents() throws {
        func refusal(_ new: RunIdentity, allowed: [String] = []) throws -> String? {
            let changes = ConfigurationChanges(from: try identity(unet), to: new)
            let error = #expect(throws: RunError.self) {
                try changes.check(AllowedChanges.none, of: "step-10")
            }
            #expect(try changes.check(AllowedChanges(allowed), of: "step-10").count == 1)
            return error?.message
        }
        #expect(
            try refusal(identity(unet, data: "d2"), allowed: ["data"])?.contains(
                "data.fingerprint was d1, is d2 (the model was trained on different data)") == true)
        #expect(
            try refusal(identity(unet, stage: "s2"), allowed: ["first_stage.fingerprint"])?.contains(
                "first_stage.fingerprint was s1, is s2") == true)
        #expect(
            try refusal(identity(unet, scale: 1), allowed: ["first_stage"])?.contains(
                "first_stage.scaling was [0.18, 0.0], is [1.0, 0.0]") == true)
    }

    @Test func autoencodersAreComparedToo() throws {
        let old = try identity(autoencoder, folder: "vae")
        let new = try identity(autoencoder, ["loss.kl=1e-3", "model.scaling_factor=1"], folder: "vae")
        #expect(throws: RunError.self) {
            try ConfigurationChanges(from: old, to: new).check(AllowedChanges.none, of: "step-10")
        }
        #expect(
            try ConfigurationChanges(from: old, to: new).check(AllowedChanges(["loss"]), of: "step-10").count
                == 2)
        // A U-Net in place of an autoencoder is detected by its tensors instead.
        #expect(
            try ConfigurationChanges(from: old, to: identity(unet)).check(AllowedChanges.none, of: "x") == [])
    }

    /// A checkpoint of an older version may lack some keys and have others that no longer exist.
    @Test func olderConfigurations() throws {
        let new = try identity(unet)
        var old = new
        old.configuration = unet
        #expect(try ConfigurationChanges(from: old, to: new).check(AllowedChanges.none, of: "x") == [])
        old.configuration = new.configuration + "retired: {key: 1}\n"
        #expect(
            try ConfigurationChanges(from: old, to: new).check(AllowedChanges.none, of: "x") == [
                "retired.key was 1, is not given"
            ])
    }

    @Test func allowedNamesAreChecked() {
        let error = #expect(throws: RunError.self) { try AllowedChanges(["seed,train.batchsize"]) }
        #expect(error?.message.contains("train.batchsize: is not a configuration key") == true)
        #expect(error?.message.contains("did you mean 'train.batch_size'?") == true)
        #expect(error?.exitStatus == ExitStatus.usage)
    }

    @Test func aRefusedResumeLeavesTheRunAsItIs() throws {
        let scratch = try ScratchFolder()
        let folder = CheckpointFolder(scratch.path)
        let state = CheckpointState(seed: 1)
        for step in [10, 20] { _ = try saveCheckpoint(state, step: step, in: folder, ranks: 1) }
        let target = CheckpointState()
        var warnings: [String] = []
        let error = #expect(throws: RunError.self) {
            try folder.restore(
                .path(folder.path(step: 20)), into: target.buffers, target.table,
                communicator: Communicator(),
                accept: { throw RunError("not \($0.manifest.step)") }, warn: { warnings.append($0) })
        }
        #expect(error?.message == "not 20" && warnings == [])
        #expect(try folder.steps() == [10, 20])
        #expect(target.bits() == CheckpointState().bits())
    }
}
