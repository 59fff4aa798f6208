import FileFormats
import Foundation
import LDMModel
import Support
import Testing
import TestSupport

private func unet(_ json: String) throws -> UNet2DConfig {
    try UNet2DConfig(config: ConfigNode(JSONValue(parsing: json)))
}

@Suite struct ModelConfigTests {
    @Test func defaultsAreThoseOfDiffusers() throws {
        // inspect.signature(UNet2DModel.__init__) of diffusers 0.42, as JSON.
        let defaults = """
            {"sample_size": null, "in_channels": 3, "out_channels": 3, "center_input_sample": false,
             "time_embedding_type": "positional", "time_embedding_dim": null, "freq_shift": 0,
             "flip_sin_to_cos": true,
             "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
             "mid_block_type": "UNetMidBlock2D",
             "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
             "block_out_channels": [224, 448, 672, 896], "layers_per_block": 2, "mid_block_scale_factor": 1,
             "downsample_padding": 1, "downsample_type": "conv", "upsample_type": "conv", "dropout": 0.0,
             "act_fn": "silu", "attention_head_dim": 8, "norm_num_groups": 32, "attn_norm_num_groups": null,
             "norm_eps": 1e-05, "resnet_time_scale_shift": "default", "add_attention": true,
             "class_embed_type": null, "num_class_embeds": null, "num_train_timesteps": null}
            """
        #expect(try unet(defaults) == unet("{}"))
        let keys = try #require(JSONValue(parsing: defaults).objectValue).keys
        #expect(Set(UNet2DConfig().node.entries?.map(\.key) ?? []) == Set(keys))
        let autoencoder = """
            {"in_channels": 3, "out_channels": 3, "down_block_types": ["DownEncoderBlock2D"],
             "up_block_types": ["UpDecoderBlock2D"], "block_out_channels": [64], "layers_per_block": 1,
             "act_fn": "silu", "latent_channels": 4, "norm_num_groups": 32, "sample_size": 32,
             "scaling_factor": 0.18215, "shift_factor": null, "latents_mean": null, "latents_std": null,
             "force_upcast": true, "use_quant_conv": true, "use_post_quant_conv": true,
             "mid_block_add_attention": true}
            """
        let node = ConfigNode(try JSONValue(parsing: autoencoder))
        #expect(try AutoencoderKLConfig(config: node) == AutoencoderKLConfig())
        #expect(
            Set(AutoencoderKLConfig().node.entries?.map(\.key) ?? []) == Set(node.entries?.map(\.key) ?? []))
        let vq = """
            {"in_channels": 3, "out_channels": 3, "down_block_types": ["DownEncoderBlock2D"],
             "up_block_types": ["UpDecoderBlock2D"], "block_out_channels": [64], "layers_per_block": 1,
             "act_fn": "silu", "latent_channels": 3, "sample_size": 32, "num_vq_embeddings": 256,
             "norm_num_groups": 32, "vq_embed_dim": null, "norm_type": "group",
             "mid_block_add_attention": true, "lookup_from_codebook": false, "force_upcast": false}
            """
        let vqNode = ConfigNode(try JSONValue(parsing: vq))
        #expect(try VQModelConfig(config: vqNode) == VQModelConfig())
        // The only default that differs from diffusers, which has 0.18215: VQ models were trained without
        // scaling.
        #expect(VQModelConfig().scalingFactor == 1)
        #expect(
            Set(VQModelConfig().node.entries?.map(\.key) ?? [])
                == Set(vqNode.entries?.map(\.key) ?? []).union(["scaling_factor"]))
    }

    @Test func readsTheFilesOfWellKnownModels() throws {
        let cifar = try unet(
            """
            {"_class_name": "UNet2DModel", "_diffusers_version": "0.0.4", "act_fn": "silu",
             "attention_head_dim": null, "block_out_channels": [128, 256, 256, 256],
             "center_input_sample": false,
             "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
             "downsample_padding": 0, "flip_sin_to_cos": false, "freq_shift": 1, "in_channels": 3,
             "layers_per_block": 2, "mid_block_scale_factor": 1, "norm_eps": 1e-06, "norm_num_groups": 32,
             "out_channels": 3, "sample_size": 32, "time_embedding_type": "positional",
             "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"]}
            """)
        #expect(cifar.attentionHeadDim == nil)
        #expect(cifar.freqShift == 1 && !cifar.flipSinToCos && cifar.downsamplePadding == 0)
        #expect(cifar.timeEmbedDim == 512)
        #expect(cifar.sampleSize == SpatialSize(32))
        #expect(cifar.midAttentionNumGroups == 32)
        let vae = try AutoencoderKLConfig(
            config: ConfigNode(
                try JSONValue(
                    parsing: """
                        {"_class_name": "AutoencoderKL", "_diffusers_version": "0.4.2", "act_fn": "silu",
                         "block_out_channels": [128, 256, 512, 512],
                         "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D",
                                              "DownEncoderBlock2D"],
                         "in_channels": 3, "latent_channels": 4, "layers_per_block": 2, "norm_num_groups": 32,
                         "out_channels": 3, "sample_size": 256,
                         "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D",
                                            "UpDecoderBlock2D"]}
                        """)))
        #expect(vae.downsamplingFactor == 8)
        #expect(vae.scalingFactor == 0.18215)
    }

    @Test func readsThePartsOfTheLatentDiffusionPipeline() throws {
        // CompVis/ldm-celebahq-256: unet/config.json and vqvae/config.json.
        let model = try unet(
            """
            {"_class_name": "UNet2DModel", "_diffusers_version": "0.0.4", "act_fn": "silu",
             "attention_head_dim": 32, "block_out_channels": [224, 448, 672, 896],
             "center_input_sample": false,
             "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
             "downsample_padding": 1, "flip_sin_to_cos": true, "freq_shift": 0, "in_channels": 3,
             "layers_per_block": 2, "mid_block_scale_factor": 1, "norm_eps": 1e-05, "norm_num_groups": 32,
             "out_channels": 3, "sample_size": 64, "time_embedding_type": "positional",
             "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"]}
            """)
        #expect(model.attentionHeadDim == 32)
        #expect(model.sampleSize == SpatialSize(64))
        let vq = try VQModelConfig(
            config: ConfigNode(
                try JSONValue(
                    parsing: """
                        {"_class_name": "VQModel", "_diffusers_version": "0.1.2", "act_fn": "silu",
                         "block_out_channels": [128, 256, 512],
                         "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
                         "in_channels": 3, "latent_channels": 3, "layers_per_block": 2,
                         "num_vq_embeddings": 8192, "out_channels": 3, "sample_size": 256,
                         "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"]}
                        """)))
        #expect(vq.downsamplingFactor == 4 && vq.codebookWidth == 3)
        #expect(vq.scalingFactor == 1)
        // Written explicitly, so that diffusers uses the same value.
        #expect(vq.node["scaling_factor"]?.json == 1.0)
    }

    @Test func differencesThatWeightsDoNotSurvive() throws {
        let model = try unet(#"{"sample_size": 32, "block_out_channels": [32, 64, 64, 64]}"#)
        var other = model
        other.sampleSize = nil
        other.dropout = 0.2
        other.activation = .swish
        other.timeEmbeddingDim = 128
        other.attnNormNumGroups = 32
        #expect(model.differences(from: other) == [])
        other.freqShift = 1
        other.blockOutChannels = [32, 64, 64, 96]
        other.attentionHeadDim = nil
        #expect(
            model.differences(from: other) == [
                "attention_head_dim is 8, there null",
                "block_out_channels is [32,64,64,64], there [32,64,64,96]", "freq_shift is 0, there 1",
            ])
        let autoencoder = AutoencoderKLConfig()
        var finer = autoencoder
        finer.scalingFactor = 2
        finer.sampleSize = SpatialSize(64)
        #expect(autoencoder.differences(from: finer) == [])
        finer.latentChannels = 8
        #expect(autoencoder.differences(from: finer) == ["latent_channels is 4, there 8"])
    }

    @Test func filesRoundTrip() throws {
        let scratch = try ScratchFolder()
        var config = UNet2DConfig()
        config.sampleSize = SpatialSize(height: 32, width: 64)
        config.attentionHeadDim = nil
        config.midBlockType = nil
        config.resnetTimeScaleShift = .scaleShift
        config.dropout = 0.1
        #expect(config.midAttentionNumGroups == nil)
        try config.write(to: scratch.file("config.json"))
        #expect(try UNet2DConfig(contentsOf: scratch.file("config.json")) == config)
        var autoencoder = AutoencoderKLConfig()
        autoencoder.scalingFactor = 0.9227
        autoencoder.shiftFactor = -0.01
        try autoencoder.write(to: scratch.file("vae.json"))
        #expect(try AutoencoderKLConfig(contentsOf: scratch.file("vae.json")) == autoencoder)
        var vq = VQModelConfig()
        vq.vqEmbedDim = 5
        #expect(vq.codebookWidth == 5)
        try vq.write(to: scratch.file("vq.json"))
        #expect(try VQModelConfig(contentsOf: scratch.file("vq.json")) == vq)
        let wrong = try #require(throws: ConfigError.self) {
            try VQModelConfig(contentsOf: scratch.file("vae.json"))
        }
        #expect(wrong.description.contains("shift_factor") || wrong.description.contains("AutoencoderKL"))
    }

    @Test(arguments: [
        (#"{"layers_per_blok": 2}"#, "layers_per_blok: unknown key; did you mean 'layers_per_block'?"),
        (
            #"{"block_out_channels": [100, 200, 300, 400]}"#,
            "100 channels are not divisible by norm_num_groups 32"
        ),
        (#"{"block_out_channels": [32, 64]}"#, "down_block_types: found 4 blocks, expected 2"),
        (#"{"block_out_channels": []}"#, "empty list"),
        (
            #"{"block_out_channels": [32, "64"]}"#,
            "block_out_channels[1]: found the string '64', expected a whole number"
        ),
        (#"{"block_out_channels": 32}"#, "block_out_channels: found 32, expected a list"),
        (#"{"norm_num_groups": 0}"#, "norm_num_groups: found 0"),
        (#"{"norm_num_groups": null}"#, "found null, expected a whole number"),
        (
            #"{"down_block_types": ["CrossAttnDownBlock2D"]}"#,
            "down_block_types[0]: found the string 'CrossAttnDownBlock2D'"
        ),
        (#"{"attention_head_dim": 9}"#, "are not divisible into heads of 9"),
        (#"{"attention_head_dim": 0}"#, "attention_head_dim: found 0"),
        (#"{"attn_norm_num_groups": 5}"#, "attn_norm_num_groups"),
        (
            #"{"time_embedding_type": "fourier"}"#,
            "time_embedding_type: found 'fourier', which is not supported"
        ),
        (#"{"downsample_type": "resnet"}"#, "downsample_type"),
        (#"{"class_embed_type": "identity"}"#, "class_embed_type: found the string 'identity', expected"),
        (#"{"mid_block_type": "UNetMidBlock2DCrossAttn"}"#, "mid_block_type"),
        (#"{"act_fn": "gelu"}"#, "act_fn: found the string 'gelu', expected one of silu, swish"),
        (#"{"dropout": 1}"#, "dropout: found 1"),
        (#"{"dropout": "0.1"}"#, "dropout: found the string '0.1', expected a finite number"),
        (#"{"sample_size": 36}"#, "sample_size: found 36, expected a multiple of 8"),
        (#"{"sample_size": [32]}"#, "expected a whole number or [height, width]"),
        (#"{"downsample_padding": 2}"#, "downsample_padding: found 2"),
        (#"{"norm_eps": 0}"#, "norm_eps: found 0"),
        (#"{"freq_shift": 112}"#, "freq_shift: found 112"),
        (#"{"flip_sin_to_cos": 1}"#, "flip_sin_to_cos: found 1, expected true or false"),
        (#"{"_class_name": "UNet2DConditionModel"}"#, "_class_name"),
        ("[]", "found a list of 0, expected a section of keys"),
    ])
    func refuses(json: String, hint: String) throws {
        let error = try #require(throws: ConfigError.self) { try unet(json) }
        #expect(error.description.contains(hint), "\(error)")
        #expect(!error.description.contains("\n"))
    }

    @Test func autoencodersRefuseWhatTheyCannotBuild() throws {
        func attempt(_ json: String) throws -> String {
            let node = ConfigNode(try JSONValue(parsing: json))
            return try #require(throws: ConfigError.self) { try AutoencoderKLConfig(config: node) }
                .description
        }
        #expect(
            try attempt(#"{"down_block_types": ["AttnDownEncoderBlock2D"]}"#).contains("DownEncoderBlock2D"))
        #expect(try attempt(#"{"latents_mean": [0, 0, 0, 0]}"#).contains("latents_mean"))
        #expect(try attempt(#"{"block_out_channels": [48]}"#).contains("48 channels are not divisible"))
        #expect(try attempt(#"{"scaling_factor": 0}"#).contains("scaling_factor"))
        let spatial = ConfigNode(try JSONValue(parsing: #"{"norm_type": "spatial"}"#))
        #expect(throws: ConfigError.self) { try VQModelConfig(config: spatial) }
    }

    @Test func errorsInFilesNameTheFile() throws {
        let scratch = try ScratchFolder()
        let path = scratch.file("config.json")
        try Data(#"{"dropout": 2}"#.utf8).write(to: URL(fileURLWithPath: path))
        let error = try #require(throws: ConfigError.self) { try UNet2DConfig(contentsOf: path) }
        #expect(error.description.hasPrefix("\(path): dropout: found 2"))
        try Data("{\n\"dropout\": nan}".utf8).write(to: URL(fileURLWithPath: path))
        let syntax = try #require(throws: ConfigError.self) { try UNet2DConfig(contentsOf: path) }
        #expect(syntax.description.hasPrefix("\(path): not valid JSON at line 2, column 12"))
        let missing = try #require(throws: ConfigError.self) {
            try UNet2DConfig(contentsOf: scratch.file("no.json"))
        }
        #expect(missing.kind == .file)
    }
}
