import FileFormats
import TensorCore

/// diffusers' VQModel: quantizes latents to the nearest vectors of a codebook before decoding (Esser et al.,
/// 2021; the first stage of CompVis/ldm-celebahq-256).
package final class VQModel {
    package let config: VQModelConfig
    package let store: ParameterStore

    private let encoder: Encoder
    private let quantConv: Conv2D
    /// [codes, width]
    private let codebook: Parameter
    private let postQuantConv: Conv2D
    private let decoder: Decoder

    /// Declares the model's parameters in the store; values come from `store.initialize` or a `ModelFolder`.
    package init(_ config: VQModelConfig, store: ParameterStore = ParameterStore()) throws(ConfigError) {
        try config.validate()
        self.config = config
        self.store = store
        let root = ParameterScope(store)
        let (latent, width) = (config.latentChannels, config.codebookWidth)
        let shape = AutoencoderShape(
            blockOutChannels: config.blockOutChannels, layersPerBlock: config.layersPerBlock,
            groups: config.normNumGroups, midAttention: config.midBlockAddAttention)
        encoder = Encoder(root["encoder"], config.inChannels, latent, shape)
        quantConv = Conv2D(root["quant_conv"], latent, width, kernel: 1)
        let codes = config.numVQEmbeddings
        codebook = root["quantize"]["embedding"].declare(
            "weight", [codes, width], .uniformBound(1 / Float(codes)))
        postQuantConv = Conv2D(root["post_quant_conv"], width, latent, kernel: 1)
        decoder = Decoder(root["decoder"], latent, config.outChannels, shape)
    }

    /// Records the encoder.
    ///
    /// - Parameter image: [B, H, W, in] in [-1, 1]; H and W are multiples of `config.downsamplingFactor`
    /// - Returns: latents before quantization, [B, h, w, width]
    package func encode(_ tape: Tape, _ image: Tensor) -> Tensor {
        quantConv(tape, encoder(tape, image))
    }

    /// Records the nearest-code lookup, in fp32.
    ///
    /// - Parameter latent: [B, h, w, width], not scaled
    /// - Returns: the codebook vectors [B, h, w, width], and their indices
    package func quantize(_ tape: Tape, _ latent: Tensor) -> (Tensor, CodeIndices) {
        let (codes, indices) = tape.nearestCode(tape.cast(latent, to: .float32), codebook: codebook)
        return (tape.cast(codes, to: tape.dtype), indices)
    }

    /// Records quantization and decoder.
    ///
    /// - Parameter latent: [B, h, w, width], not scaled
    /// - Returns: [B, H, W, out]
    package func decode(_ tape: Tape, _ latent: Tensor) -> Tensor {
        decoder(tape, postQuantConv(tape, quantize(tape, latent).0))
    }
}
