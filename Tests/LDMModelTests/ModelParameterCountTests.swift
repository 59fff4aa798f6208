import FileFormats
import LDMModel
import TensorCore
import Testing

/// Parameter counts of published models, as reported by diffusers. Declaring parameters allocates no memory.
@Suite struct ModelParameterCountTests {
    /// The common configuration of google/ddpm-cifar10-32 and google/ddpm-celebahq-256 (Ho et al., 2020).
    private func ddpm(_ size: Int, _ channels: [Int], attentionDown: Int, attentionUp: Int) -> UNet2DConfig {
        var config = UNet2DConfig()
        config.sampleSize = SpatialSize(size)
        config.blockOutChannels = channels
        config.downBlockTypes = channels.indices.map { $0 == attentionDown ? .attention : .plain }
        config.upBlockTypes = channels.indices.map { $0 == attentionUp ? .attention : .plain }
        config.attentionHeadDim = nil
        config.downsamplePadding = 0
        config.flipSinToCos = false
        config.freqShift = 1
        config.normEps = 1e-6
        return config
    }

    private func expect(_ store: ParameterStore, tensors: Int, values: Int) {
        #expect(store.parameters.count == tensors)
        #expect(store.parameterCount == values)
    }

    @Test func ddpmCIFAR10() throws {
        let config = ddpm(32, [128, 256, 256, 256], attentionDown: 1, attentionUp: 2)
        expect(try UNet2DModel(config).store, tensors: 328, values: 35_746_307)
    }

    @Test func ddpmCelebAHQ256() throws {
        let config = ddpm(256, [128, 128, 256, 256, 512, 512], attentionDown: 4, attentionUp: 1)
        expect(try UNet2DModel(config).store, tensors: 450, values: 113_673_219)
    }

    @Test func ldmCelebAHQ256() throws {
        var config = UNet2DConfig()
        config.sampleSize = SpatialSize(64)
        config.attentionHeadDim = 32
        expect(try UNet2DModel(config).store, tensors: 432, values: 274_056_163)
    }

    @Test func unet70M() throws {
        var config = UNet2DConfig()
        config.sampleSize = SpatialSize(32)
        (config.inChannels, config.outChannels) = (4, 4)
        config.blockOutChannels = [128, 256, 256, 512]
        config.downBlockTypes = [.plain, .attention, .attention, .plain]
        config.upBlockTypes = [.plain, .attention, .attention, .plain]
        config.attentionHeadDim = 64
        expect(try UNet2DModel(config).store, tensors: 380, values: 70_113_796)
    }

    @Test func stableDiffusionAutoencoder() throws {
        var config = AutoencoderKLConfig()
        config.blockOutChannels = [128, 256, 512, 512]
        config.downBlockTypes = Array(repeating: .plain, count: 4)
        config.upBlockTypes = Array(repeating: .plain, count: 4)
        config.layersPerBlock = 2
        expect(try AutoencoderKL(config).store, tensors: 248, values: 83_653_863)
        #expect(config.downsamplingFactor == 8)
    }

    @Test func ldmCelebAHQ256FirstStage() throws {
        var config = VQModelConfig()
        config.blockOutChannels = [128, 256, 512]
        config.downBlockTypes = Array(repeating: .plain, count: 3)
        config.upBlockTypes = Array(repeating: .plain, count: 3)
        config.layersPerBlock = 2
        config.numVQEmbeddings = 8192
        config.vqEmbedDim = 3
        expect(try VQModel(config).store, tensors: 205, values: 55_322_782)
    }

    @Test func impossibleConfigurationsAreRefused() {
        var config = UNet2DConfig()
        config.blockOutChannels = [100, 448, 672, 896]
        #expect(throws: ConfigError.self) { try UNet2DModel(config) }
    }
}
