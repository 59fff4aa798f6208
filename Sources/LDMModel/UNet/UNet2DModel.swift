import FileFormats
import TensorCore

// B samples, H × W pixels or latent cells, C channels.

/// diffusers' UNet2DModel: predicts the noise (or v) in a noisy sample from the sample and its timestep (Ho
/// et al., 2020; Dhariwal and Nichol, 2021). It has the same parameters and names and computes the same
/// function.
package final class UNet2DModel {
    package let config: UNet2DConfig
    package let store: ParameterStore

    private let timeEmbedding: TimestepEmbedding
    private let classEmbedding: ClassEmbedding?
    private let convIn: Conv2D
    private let downBlocks: [DownBlock]
    private let midBlock: UNetMidBlock2D?
    private let upBlocks: [UpBlock]
    private let convNormOut: GroupNorm
    private let convOut: Conv2D

    /// Declares the model's parameters in the store; values come from `store.initialize` or a `ModelFolder`.
    package init(_ config: UNet2DConfig, store: ParameterStore = ParameterStore()) throws(ConfigError) {
        try config.validate()
        self.config = config
        self.store = store
        let root = ParameterScope(store)
        let channels = config.blockOutChannels
        let (first, last) = (channels[0], channels[channels.count - 1])
        let headDim = { (channels: Int) in config.attentionHeadDim ?? channels }
        var settings = BlockSettings(
            timeChannels: config.timeEmbedDim, groups: config.normNumGroups, eps: Float(config.normEps))
        settings.timeScaleShift = config.resnetTimeScaleShift
        settings.dropout = Float(config.dropout)

        timeEmbedding = TimestepEmbedding(
            root["time_embedding"], channels: first, timeChannels: config.timeEmbedDim,
            flipSinToCos: config.flipSinToCos, freqShift: Float(config.freqShift))
        classEmbedding = ClassEmbedding(root, config)
        convIn = Conv2D(root["conv_in"], config.inChannels, first)

        downBlocks = channels.indices.map { level in
            DownBlock(
                root["down_blocks", level], channels[max(level - 1, 0)], channels[level],
                layers: config.layersPerBlock,
                headDim: config.downBlockTypes[level] == .attention ? headDim(channels[level]) : nil,
                downsamplePadding: level == channels.count - 1 ? nil : config.downsamplePadding, settings)
        }

        var midSettings = settings
        midSettings.outputScaleFactor = Float(config.midBlockScaleFactor)
        midBlock =
            config.midBlockType != nil
            ? UNetMidBlock2D(
                root["mid_block"], last, headDim: config.addAttention ? headDim(last) : nil,
                attentionGroups: config.midAttentionNumGroups, midSettings) : nil

        // Each layer of an up block consumes one encoder output: those of its own level, and for the last
        // layer the one from the level above.
        let reversed = Array(channels.reversed())
        upBlocks = reversed.indices.map { level in
            let output = reversed[level]
            let above = reversed[min(level + 1, reversed.count - 1)]
            return UpBlock(
                root["up_blocks", level], reversed[max(level - 1, 0)], output,
                layers: config.layersPerBlock + 1,
                skipChannels: Array(repeating: output, count: config.layersPerBlock) + [above],
                headDim: config.upBlockTypes[level] == .attention ? headDim(output) : nil,
                upsamples: level < reversed.count - 1, settings)
        }
        convNormOut = GroupNorm(
            root["conv_norm_out"], first, groups: config.normNumGroups, eps: Float(config.normEps))
        convOut = Conv2D(root["conv_out"], first, config.outChannels)
    }

    /// Records the forward pass.
    ///
    /// - Parameters:
    ///   - sample: [B, H, W, in], of the tape's type; H and W are multiples of `config.downsamplingFactor`
    ///   - timestep: [B], fp32
    ///   - label: [B], fp32: the class of each sample, for a class-conditional model only
    /// - Returns: [B, H, W, out], of the tape's type
    package func callAsFunction(
        _ tape: Tape, sample: Tensor, timestep: Tensor, label: Tensor? = nil
    ) -> Tensor {
        let (shape, factor) = (sample.shape, config.downsamplingFactor)
        precondition(
            shape.count == 4 && shape[3] == config.inChannels && shape[1] % factor == 0
                && shape[2] % factor == 0,
            "sample \(shape): expected [B, H, W, \(config.inChannels)], H and W multiples of \(factor)")
        precondition(timestep.shape == [shape[0]], "timestep \(timestep.shape): expected one a sample")

        let x = config.centerInputSample ? tape.affine(sample, scale: 2, shift: -1) : sample
        precondition((label != nil) == config.isConditional, "a class-conditional model requires labels")
        var embedding = timeEmbedding(tape, timestep)  // [B, time]
        if let classEmbedding, let label { embedding = tape.add(embedding, classEmbedding(tape, label)) }
        let time = tape.silu(embedding)
        var h = convIn(tape, x)
        var skips = [h]
        for block in downBlocks {
            let (output, blockSkips) = block(tape, h, time: time)
            h = output
            skips += blockSkips
        }
        if let midBlock { h = midBlock(tape, h, time: time) }
        for block in upBlocks { h = block(tape, h, skips: &skips, time: time) }
        return convOut(tape, convNormOut(tape, h, silu: true))
    }
}
