import Configuration
import FileFormats
import Foundation
import LDMModel
import Testing
import TestSupport

/// The configurations that are shipped with the program.
private let folder = repositoryPath("configs")

@Suite struct ConfigurationFilesTests {
    @Test func everyShippedConfigurationLoads() throws {
        let names = try FileManager.default.contentsOfDirectory(atPath: folder).filter {
            $0.hasSuffix(".yaml")
        }.sorted()
        #expect(names.count >= 9)
        for name in names {
            let path = folder + "/" + name
            let stem = String(name.dropLast(5))
            if stem.hasPrefix("vae") {
                let configuration = try AutoencoderConfiguration.load(path: path)
                #expect(configuration.name == stem)
                #expect(
                    try AutoencoderConfiguration(yaml: configuration.resolvedYAML(), source: name)
                        == configuration)
            } else {
                let configuration = try Configuration.load(path: path)
                #expect(configuration.name == stem)
                #expect(try Configuration(yaml: configuration.resolvedYAML(), source: name) == configuration)
                let sampling = configuration.sampling
                let sampler = try configuration.samplingSettings.sampler(of: configuration.schedulerConfig())
                #expect(sampler.timesteps.count == sampling.steps)
            }
        }
    }

    @Test func theReportsConfiguration() throws {
        let configuration = try Configuration.load(path: folder + "/celeba_hq_256.yaml")
        #expect(configuration.model.sampleSize == SpatialSize(32) && configuration.model.inChannels == 4)
        #expect(
            configuration.diffusion.timesteps == 1000 && configuration.diffusion.schedule == .squaredCosine)
        #expect(configuration.train.batchSize == 64)
        #expect(configuration.optimizer.learningRate == 2e-4 && configuration.optimizer.warmupSteps == 5000)
    }

    @Test func theBenchmarkModelComesFromItsJSONFile() throws {
        let path = folder + "/unet_70m.yaml"
        let configuration = try Configuration.load(path: path)
        #expect(try configuration.model == UNet2DConfig(contentsOf: folder + "/unet_70m.json"))
        // Keys next to `config` override those of the file.
        #expect(try Configuration.load(path: path, overrides: ["model.dropout=0.1"]).model.dropout == 0.1)
        // The resolved configuration no longer needs the file.
        #expect(!configuration.resolvedYAML().contains("unet_70m.json"))
        let typo = try #require(throws: ConfigError.self) {
            try Configuration.load(path: path, overrides: ["model.dropuot=0.1"])
        }
        #expect(
            typo.description == "--set model.dropuot=0.1: model.dropuot: unknown key; did you mean 'dropout'?"
        )
    }

    @Test func theLatentDiffusionPapersSchedule() throws {
        let config = try Configuration.load(path: folder + "/ldm_celebahq_vq4.yaml").schedulerConfig()
        #expect(
            config.betaSchedule == .scaledLinear && config.betaStart == 0.0015 && config.betaEnd == 0.0195)
        #expect(!config.clipSample)
    }
}

@Suite struct ConfigurationAutoencoderTests {
    private let minimal = """
        name: vae
        data: {path: photos, size: 64}
        model:
            block_out_channels: [32, 64]
            down_block_types: [DownEncoderBlock2D, DownEncoderBlock2D]
            up_block_types: [UpDecoderBlock2D, UpDecoderBlock2D]
        train: {steps: 10, batch_size: 4}
        """

    private func read(_ overrides: [String] = []) throws -> AutoencoderConfiguration {
        try AutoencoderConfiguration(yaml: minimal, source: "vae.yaml", overrides: overrides)
    }

    @Test func defaultsAreFilledIn() throws {
        let configuration = try read()
        #expect(configuration.loss.l1 == 1 && configuration.loss.mse == 0)
        #expect(configuration.loss.kl == 1e-6 && configuration.loss.edge == 0)
        #expect(configuration.model.latentChannels == 4)
        #expect(configuration.model.sampleSize == SpatialSize(64))
        #expect(configuration.stableHash.count == 16)
        #expect(try read(["loss.kl=1e-4"]).stableHash != configuration.stableHash)
        #expect(
            try AutoencoderConfiguration(yaml: configuration.resolvedYAML(), source: "again") == configuration
        )
        let sized = try read(["model.sample_size=128", "data={path: photos}"])
        #expect(sized.data.size == 128)
    }

    @Test(arguments: [
        ("loss.kl=-1", "loss.kl: found -1"), ("loss.l1=0", "nothing would be reconstructed"),
        ("loss.lpips=1", "loss.lpips: unknown key"),
        ("data.size=33", "data.size: found 33, expected a multiple of 2"),
        ("data={path: photos}", "data.size: must be given"),
        ("diffusion.timesteps=5", "diffusion: unknown key"),
        ("model.out_channels=1", "model.out_channels: found 1, expected in_channels (3)"),
        ("model.down_block_types=[DownEncoderBlock2D]", "model.down_block_types: found 1 blocks, expected 2"),
    ])
    func refuses(override: String, hint: String) throws {
        let error = try #require(throws: ConfigError.self) { try read([override]) }
        #expect(error.description.contains(hint), "\(error)")
    }
}
