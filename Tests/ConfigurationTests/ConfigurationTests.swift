import Configuration
import FileFormats
import Foundation
import LDMModel
import Testing
import TestSupport

/// A minimal valid configuration.
private let minimal = """
    name: test
    data: {path: synthetic-faces, size: 16}
    model:
        sample_size: 16
        block_out_channels: [32, 64]
        down_block_types: [DownBlock2D, AttnDownBlock2D]
        up_block_types: [AttnUpBlock2D, UpBlock2D]
    train: {steps: 10, batch_size: 4}
    """

private func read(_ yaml: String, _ overrides: [String] = []) throws -> Configuration {
    try Configuration(yaml: yaml, source: "test.yaml", overrides: overrides)
}

private func failure(_ yaml: String, _ overrides: [String] = []) throws -> ConfigError {
    try #require(throws: ConfigError.self) { try read(yaml, overrides) }
}

@Suite struct ConfigurationTests {
    @Test func defaultsAreFilledIn() throws {
        let configuration = try read(minimal)
        #expect(configuration.seed == 0)
        #expect(configuration.firstStagePath == nil)
        #expect(configuration.data.count == 10_000)
        #expect(configuration.diffusion.schedule == .squaredCosine)
        #expect(configuration.diffusion.timesteps == 1000)
        #expect(configuration.diffusion.clipSample)
        #expect(configuration.optimizer.betas == [0.9, 0.999])
        #expect(configuration.optimizer.clipNorm == 1)
        #expect(configuration.ema.decays == [0.9999] && configuration.ema.warmup)
        #expect(configuration.train.microBatchSize == nil)
        #expect(configuration.train.precision == .auto)
        #expect(configuration.train.sharding == .optimizer)
        #expect(configuration.checkpoint.keepLast == 3)
        #expect(configuration.sampling.steps == 50 && configuration.sampling.sampler == .ddim)
        #expect(configuration.model.attentionHeadDim == 8)
    }

    @Test func latentsAreNotClippedByDefault() throws {
        let latent = try read(minimal + "\nfirst_stage: {path: models/vae}")
        #expect(latent.firstStagePath == "models/vae")
        #expect(!latent.diffusion.clipSample)
        #expect(!latent.schedulerConfig().clipSample)
        #expect(try read(minimal, ["diffusion.clip_sample=false"]).diffusion.clipSample == false)
    }

    @Test func theChannelsOfImagesAreThoseOfTheModelInPixelSpace() throws {
        let gray = ["model.in_channels=1", "model.out_channels=1", "data.channels=1"]
        #expect(try read(minimal, gray).data.channels == 1)
        let mismatch = try failure(minimal, ["data.channels=1"])
        #expect(mismatch.description.contains("data.channels: found 1, expected model.in_channels (3)"))
        let two = try failure(minimal, ["data.channels=2"])
        #expect(two.description.contains("data.channels: found 2, expected 3, or 1 for grayscale"))
        #expect(try read(minimal, ["data.channels=1", "first_stage.path=vae"]).data.channels == 1)
        // Configurations without the key keep their text and hash.
        #expect(try !read(minimal).resolvedYAML().contains("    channels:"))
    }

    @Test func theImageSizeFollowsTheModelInPixelSpace() throws {
        #expect(try read(minimal, ["data={path: synthetic-faces}"]).data.size == 16)
        let mismatch = try failure(minimal, ["data.size=32"])
        #expect(mismatch.description.contains("data.size: found 32, expected model.sample_size (16)"))
        #expect(try read(minimal, ["data.size=32", "first_stage.path=vae"]).data.size == 32)
        #expect(
            try failure(minimal, ["data={path: synthetic-faces}", "model.sample_size=null"]).kind
                == .missingKey)
        #expect(
            try failure(minimal, ["data.size=15", "model.sample_size=null"]).description.contains(
                "multiple of 2"))
    }

    @Test func theResolvedConfigurationReadsBackAsItself() throws {
        for extra in [
            "", "\nfirst_stage: {path: 'a b: #c'}",
            "\nseed: 7\noptimizer: {clip_norm: null, betas: [0, 0.5]}",
        ] {
            let configuration = try read(minimal + extra)
            let yaml = configuration.resolvedYAML()
            let again = try Configuration(yaml: yaml, source: "resolved")
            #expect(again == configuration)
            #expect(again.resolvedYAML() == yaml)
            #expect(again.stableHash == configuration.stableHash)
        }
    }

    @Test func theHashFollowsTheContent() throws {
        let plain = try read(minimal)
        #expect(plain.stableHash.count == 16)
        #expect(try read(minimal + "\noptimizer: {learning_rate: 0.0001}").stableHash == plain.stableHash)
        #expect(try read(minimal, ["optimizer.learning_rate=2e-4"]).stableHash != plain.stableHash)
        // A fixed value, so that the hash changes only if a default changes; the last change was
        // ema.sigma_rel, [].
        #expect(plain.stableHash == "73f0b01a1bd53ee6")
    }

    @Test func overridesAreYAML() throws {
        let configuration = try read(
            minimal,
            [
                "train.steps=20", "optimizer.betas=[0.5, 0.9]", "optimizer.clip_norm=null", "name=other",
                "ema.decays=[]",
                "train.steps=30", "diffusion.prediction=v_prediction", "optimizer.learning_rate=3e-4",
            ])
        #expect(configuration.train.steps == 30)
        #expect(configuration.optimizer.betas[0] == 0.5)
        #expect(configuration.optimizer.clipNorm == nil)
        #expect(configuration.name == "other")
        #expect(configuration.ema.decays == [])
        #expect(configuration.diffusion.prediction == .velocity)
        #expect(configuration.optimizer.learningRate == 3e-4)
        #expect(configuration.schedulerConfig().predictionType == .velocity)
    }

    @Test func theSchedulerFollowsTheSampler() throws {
        let plain = try read(minimal)
        #expect(plain.schedulerConfig().schedulerClass == .ddim && plain.sampling.spacing == .leading)
        // Keys of later versions are omitted at their defaults: the configuration keeps its hash.
        #expect(!plain.resolvedYAML().contains("karras") && !plain.resolvedYAML().contains("zero_snr"))
        let solver = try read(minimal + "\nsampling: {sampler: dpmpp-3m-sde, karras: true}")
            .schedulerConfig()
        #expect(solver.schedulerClass == .dpmSolver && solver.solverOrder == 3)
        #expect(solver.algorithmType == .sde && solver.useKarrasSigmas)
        let rescaled = try read(
            minimal + "\ndiffusion: {rescale_betas_zero_snr: true, prediction: sample, min_snr_gamma: 5}")
        #expect(rescaled.schedulerConfig().rescaleBetasZeroSNR && rescaled.sampling.spacing == .trailing)
        #expect(try rescaled.noiseSchedule().alphasCumprod.last == 0)
        // Only DDPMScheduler has the sigmoid schedule; the others are given its β.
        for (sampler, isWrittenOut) in [("ddpm", false), ("ddim", true)] {
            let scheduler = try read(
                minimal + "\ndiffusion: {schedule: sigmoid}\nsampling: {sampler: \(sampler)}"
            ).schedulerConfig()
            #expect((scheduler.trainedBetas != nil) == isWrittenOut && scheduler.betaSchedule == .sigmoid)
        }
    }

    @Test(arguments: [
        ("train.stps=5", "--set train.stps=5: train.stps: unknown key; did you mean 'steps'?"),
        (
            "train.steps=five",
            "--set train.steps=five: train.steps: found the string 'five', expected a whole number"
        ),
        ("train.steps", "expected KEY=VALUE"), ("=5", "expected KEY=VALUE"),
        ("train..steps=5", "expected KEY=VALUE"),
        ("train.steps.more=5", "train.steps: found 10, which has no key 'more'"),
        ("train.steps=[1", "not valid YAML"), ("train=5", "train: found 5, expected a section of keys"),
    ])
    func badOverridesAreNamed(override: String, hint: String) throws {
        let error = try failure(minimal, [override])
        #expect(error.description.contains(hint), "\(error)")
        #expect(!error.description.contains("\n"))
    }
}

@Suite struct ConfigurationErrorTests {
    @Test func errorsNameFileLineKeyAndNearestKey() throws {
        let typo = try failure(minimal + "\noptimizer:\n    learning_rat: 1e-4\n")
        #expect(
            typo.description
                == "test.yaml:10: optimizer.learning_rat: unknown key; did you mean 'learning_rate'?")
        let section = try failure(minimal + "\noptimiser: {learning_rate: 1e-4}\n")
        #expect(section.description == "test.yaml:9: optimiser: unknown key; did you mean 'optimizer'?")
        let channels = try failure(minimal, ["model.norm_num_groups=24"])
        #expect(
            channels.description.contains(
                "model.block_out_channels: 32 channels are not divisible by norm_num_groups 24"))
        #expect(channels.description.hasPrefix("test.yaml:5: "))
    }

    @Test(arguments: [
        ("optimizer: {betas: [0.9, 1.0]}", "optimizer.betas[1]: found 1, expected 0 or more and less than 1"),
        ("optimizer: {betas: [0.9]}", "optimizer.betas: found 1 values, expected two"),
        ("optimizer: {betas: 0.9}", "optimizer.betas: found 0.9, expected a list"),
        ("optimizer: {learning_rate: 0}", "optimizer.learning_rate: found 0, expected more than 0"),
        ("optimizer: {learning_rate: '2e-4'}", "found the string '2e-4', expected a finite number"),
        ("optimizer: {learning_rate: .nan}", "expected a finite number"),
        ("optimizer: {warmup_steps: 11}", "optimizer.warmup_steps: found 11, more than train.steps (10)"),
        ("optimizer: {schedule: linear}", "expected one of constant, cosine"),
        ("optimizer: {min_learning_rate: 1e-5}", "only applies to schedule: cosine"),
        ("optimizer: {schedule: cosine, min_learning_rate: 1}", "expected 0 to learning_rate"),
        ("optimizer: {clip_norm: 0}", "or null for no clipping"),
        ("ema: {decays: [1]}", "ema.decays[0]: found 1"), ("ema: {decays: [0.9, 0.9]}", "given twice"),
        (
            "ema: {sigma_rel: [0.05, 0.29]}",
            "ema.sigma_rel[1]: found 0.29, expected more than 0 and less than 1/√12"
        ),
        ("ema: {sigma_rel: [0]}", "ema.sigma_rel[0]: found 0"),
        ("ema: {sigma_rel: [0.1, 0.10]}", "ema.sigma_rel: the same width is given twice"),
        ("ema: {sigma_rel: [0.05, 0.1], snapshot_every: -1}", "ema.snapshot_every: found -1"),
        ("ema: {snapshot_every: 100}", "ema.snapshot_every: needs at least two widths in ema.sigma_rel"),
        ("ema: {sigma_rel: [0.1], snapshot_every: 100}", "needs at least two widths"),
        ("ema: {warmup: yes}", "ema.warmup: found the string 'yes', expected true or false"),
        ("diffusion: {timesteps: 0}", "diffusion.timesteps: found 0"),
        (
            "diffusion: {timesteps: 10}\nsampling: {steps: 11}",
            "sampling.steps: found 11, expected 1 to diffusion.timesteps (10)"
        ),
        ("diffusion: {beta_start: 0.5}", "diffusion.beta_end"),
        ("diffusion: {min_snr_gamma: 0}", "min_snr_gamma"),
        ("diffusion: {prediction: x0}", "expected one of epsilon, v_prediction, sample"),
        ("sampling: {eta: 1.1}", "sampling.eta: found 1.1"),
        ("sampling: {sampler: ddpm, eta: 1}", "only applies to sampler: ddim"),
        ("sampling: {sampler: dpm}", "expected one of ddim, ddpm, dpmpp-1m"),
        ("sampling: {sampler: euler-a, karras: true}", "sampling.karras: does not apply to sampler: euler-a"),
        (
            "diffusion: {prediction: sample}\nsampling: {sampler: euler-a}",
            "sampling.sampler: euler-a: prediction_type: found sample"
        ),
        (
            "diffusion: {prediction: sample, rescale_betas_zero_snr: true}\nsampling: {sampler: heun}",
            "sampling.sampler: heun: rescale_betas_zero_snr: found true"
        ),
        (
            "diffusion: {timesteps: 10}\nsampling: {sampler: unipc, steps: 10}",
            "sampling.steps: found 10 sampling steps, expected 1 to 9"
        ),
        ("diffusion: {rescale_betas_zero_snr: true}", "diffusion.rescale_betas_zero_snr: found true with"),
        (
            "diffusion: {rescale_betas_zero_snr: true, prediction: sample, timesteps: 1}",
            "needs two timesteps or more"
        ),
        ("checkpoint: {keep_last: 0}", "checkpoint.keep_last: found 0"),
        ("checkpoint: {keep_best: -1}", "checkpoint.keep_best: found -1"),
        ("logging: {tensorboard: 1}", "logging.tensorboard: found 1, expected true or false"),
        ("logging: {wandb: online}", "logging.wandb: cannot be online; use offline"),
        ("logging: {wandb: true}", "logging.wandb: found true, expected a string"),
        ("logging: {wandb: maybe}", "expected one of off, offline"),
        ("first_stage: {}", "first_stage.path: this key must be given"),
        ("first_stage: models/vae", "first_stage: found the string 'models/vae', expected a section of keys"),
        ("seed: -1", "seed: found -1"), ("seed: 1.5", "seed: found 1.5, expected a whole number"),
        ("name: other", "appears twice"),
    ])
    func refuses(extra: String, hint: String) throws {
        let error = try failure(minimal + "\n" + extra)
        #expect(error.description.contains(hint), "\(error)")
        #expect(error.description.hasPrefix("test.yaml:"))
        #expect(!error.description.contains("\n"))
    }

    @Test(arguments: [
        ("train.steps=0", "train.steps: found 0, expected 1 or more"),
        ("train.batch_size=0", "train.batch_size: found 0"),
        ("train.micro_batch_size=5", "expected 1 to batch_size (4)"),
        ("train.precision=fp16", "expected one of fp32, bf16, auto"),
        ("train.sharding=full", "expected one of none, optimizer"),
        ("train.log_every=0", "train.log_every: found 0"),
        ("train.sample_every=-1", "or 0 for never"), ("name=a/b", "it names a folder"),
        ("name=..", "it names a folder"),
        ("data.path=''", "data.path: found nothing"),
        ("data={path: photos, count: 5}", "data.count: only applies to synthetic-faces"),
        ("data.size=0", "data.size: found 0"),
        ("model.out_channels=4", "model.out_channels: found 4, expected in_channels (3)"),
        ("model.num_class_embeds=0", "model.num_class_embeds: found 0, expected 1 to 65536, or null"),
        (
            "model.config=no-such.json",
            "model.config: no-such.json: cannot be opened: No such file or directory"
        ),
    ])
    func refusesValues(override: String, hint: String) throws {
        let error = try failure(minimal, [override])
        #expect(error.description.contains(hint), "\(error)")
        #expect(!error.description.contains("\n"))
    }

    @Test(arguments: [
        ("", "is empty"), ("# nothing", "is empty"), ("just text", "expected a section of keys"),
        ("- a\n- b", "found a list of 2"), ("a: [1", "not valid YAML"),
        ("a: b: c", "test.yaml:1: not valid YAML"),
        ("\tname: x", "not valid YAML"), ("a: 1\n---\nb: 2", "not valid YAML"),
        ("? [a]\n: 1", "a key must be a word"),
        ("a: *b", "not valid YAML"),
    ])
    func malformedYAMLIsOneLine(yaml: String, hint: String) throws {
        let error = try failure(yaml)
        #expect(error.description.hasPrefix("test.yaml"), "\(error)")
        #expect(error.description.contains(hint), "\(error)")
        #expect(!error.description.contains("\n"), "\(error)")
    }

    @Test func missingSectionsAndFilesAreNamed() throws {
        #expect(try failure("name: x").description == "test.yaml:1: data: this key must be given")
        let missing = try #require(throws: ConfigError.self) { try Configuration.load(path: "/no/such.yaml") }
        #expect(missing.description == "/no/such.yaml: does not exist")
        #expect(throws: ConfigError.self) { try Configuration.load(path: "/tmp") }
    }

    @Test func whereARunStarts() throws {
        let scratch = try ScratchFolder()
        let model = try read(minimal).model
        let unet = try UNet2DModel(model)
        unet.store.initialize(seed: 1)
        try ModelFolder(scratch.file("unet")).save(model, unet.store)

        let asked = try Configuration(
            yaml: minimal + "\ninit_from: elsewhere", source: "test.yaml", initFrom: scratch.file("unet"))
        #expect(asked.initFrom == scratch.file("unet"))
        #expect(try read(asked.resolvedYAML()) == asked)
        #expect(try read(minimal).node["init_from"] == nil)
        #expect(try read(minimal + "\ninit_from: a", ["init_from=null"]).initFrom == nil)
        #expect(try failure(minimal + "\ninit_from: ''").path == ["init_from"])

        // Without a model section, the model is that of `init_from`.
        let bare = "name: test\ndata: {path: synthetic-faces}\ntrain: {steps: 10, batch_size: 4}"
        #expect(try failure(bare).kind == .missingKey)
        let taken = try Configuration(yaml: bare, source: "test.yaml", initFrom: scratch.file("unet"))
        #expect(taken.model == model && taken.data.size == 16)
        let nowhere = try failure(bare, ["init_from=\(scratch.file("nowhere"))"])
        #expect(nowhere.description.contains("nowhere: does not exist"))
    }
}
