import TensorCore

/// An encoder level: residual blocks, each optionally followed by attention, then downsampling by 2.
/// diffusers' DownBlock2D, AttnDownBlock2D and DownEncoderBlock2D.
package struct DownBlock {
    let resnets: [ResnetBlock2D]
    /// One per residual block, or empty.
    let attentions: [Attention]
    let downsampler: Downsample2D?

    /// - Parameters:
    ///   - layers: number of residual blocks
    ///   - headDim: channels of an attention head; nil for no attention
    ///   - downsamplePadding: `Downsample2D`'s padding; nil for a level without downsampling
    package init(
        _ scope: ParameterScope, _ inChannels: Int, _ outChannels: Int, layers: Int, headDim: Int? = nil,
        downsamplePadding: Int?, _ settings: BlockSettings
    ) {
        var resnets: [ResnetBlock2D] = []
        var attentions: [Attention] = []
        for layer in 0..<layers {
            let input = layer == 0 ? inChannels : outChannels
            resnets.append(ResnetBlock2D(scope["resnets", layer], input, outChannels, settings))
            guard let headDim else { continue }
            attentions.append(
                Attention(
                    scope["attentions", layer], outChannels, headDim: headDim, groups: settings.groups,
                    eps: settings.eps))
        }
        self.resnets = resnets
        self.attentions = attentions
        downsampler = downsamplePadding.map {
            Downsample2D(scope["downsamplers", 0], outChannels, padding: $0)
        }
    }

    /// - Parameters:
    ///   - x: [B, H, W, in]
    ///   - time: silu(temb) [B, timeChannels], or nil
    /// - Returns: [B, H/2, W/2, out], and the skip connections: the output of each layer and of the
    ///   downsampler.
    package func callAsFunction(
        _ tape: Tape, _ x: Tensor, time: Tensor? = nil
    ) -> (output: Tensor, skips: [Tensor]) {
        var h = x
        var skips: [Tensor] = []
        for (layer, resnet) in resnets.enumerated() {
            h = resnet(tape, h, time: time)
            if !attentions.isEmpty { h = attentions[layer](tape, h) }
            skips.append(h)
        }
        if let downsampler {
            h = downsampler(tape, h)
            skips.append(h)
        }
        return (h, skips)
    }
}
