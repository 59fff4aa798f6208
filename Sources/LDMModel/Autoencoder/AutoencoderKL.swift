import FileFormats
import TensorCore

/// diffusers' AutoencoderKL: encodes an image as the mean and log-variance of a Gaussian over latents
/// (Rombach et al., 2022, section 3.1).
package final class AutoencoderKL {
    package let config: AutoencoderKLConfig
    package let store: ParameterStore

    private let encoder: Encoder
    private let quantConv: Conv2D?
    private let postQuantConv: Conv2D?
    private let decoder: Decoder

    /// Declares the model's parameters in the store; values come from `store.initialize` or a `ModelFolder`.
    package init(_ config: AutoencoderKLConfig, store: ParameterStore = ParameterStore()) throws(ConfigError)
    {
        try config.validate()
        self.config = config
        self.store = store
        let root = ParameterScope(store)
        let latent = config.latentChannels
        let shape = AutoencoderShape(
            blockOutChannels: config.blockOutChannels, layersPerBlock: config.layersPerBlock,
            groups: config.normNumGroups, midAttention: config.midBlockAddAttention)
        encoder = Encoder(root["encoder"], config.inChannels, 2 * latent, shape)
        quantConv =
            config.useQuantConv ? Conv2D(root["quant_conv"], 2 * latent, 2 * latent, kernel: 1) : nil
        postQuantConv =
            config.usePostQuantConv ? Conv2D(root["post_quant_conv"], latent, latent, kernel: 1) : nil
        decoder = Decoder(root["decoder"], latent, config.outChannels, shape)
    }

    /// Records the encoder.
    ///
    /// - Parameter image: [B, H, W, in] in [-1, 1]; H and W are multiples of `config.downsamplingFactor`
    /// - Returns: moments [B, h, w, 2·latent]: mean, then log-variance (not clamped)
    package func encode(_ tape: Tape, _ image: Tensor) -> Tensor {
        let moments = encoder(tape, image)
        return quantConv.map { $0(tape, moments) } ?? moments
    }

    /// Records the decoder.
    ///
    /// - Parameter latent: [B, h, w, latent], not scaled
    /// - Returns: [B, H, W, out]
    package func decode(_ tape: Tape, _ latent: Tensor) -> Tensor {
        decoder(tape, postQuantConv.map { $0(tape, latent) } ?? latent)
    }
}
