import TensorCore

/// A decoder level: residual blocks, each optionally with a concatenated skip connection before and attention
/// after it, then upsampling by 2. diffusers' UpBlock2D, AttnUpBlock2D and UpDecoderBlock2D.
package struct UpBlock {
    let resnets: [ResnetBlock2D]
    /// One per residual block, or empty.
    let attentions: [Attention]
    let upsampler: Upsample2D?
    private let takesSkips: Bool

    /// - Parameters:
    ///   - layers: number of residual blocks
    ///   - skipChannels: channels of each layer's skip connection; empty for none
    ///   - headDim: channels of an attention head; nil for no attention
    ///   - upsamples: whether the level doubles height and width
    package init(
        _ scope: ParameterScope, _ inChannels: Int, _ outChannels: Int, layers: Int,
        skipChannels: [Int] = [], headDim: Int? = nil, upsamples: Bool, _ settings: BlockSettings
    ) {
        precondition(skipChannels.isEmpty || skipChannels.count == layers, "one skip connection a layer")
        var resnets: [ResnetBlock2D] = []
        var attentions: [Attention] = []
        for layer in 0..<layers {
            let input = layer == 0 ? inChannels : outChannels
            let joined = skipChannels.isEmpty ? 0 : skipChannels[layer]
            resnets.append(ResnetBlock2D(scope["resnets", layer], input + joined, outChannels, settings))
            guard let headDim else { continue }
            attentions.append(
                Attention(
                    scope["attentions", layer], outChannels, headDim: headDim, groups: settings.groups,
                    eps: settings.eps))
        }
        self.resnets = resnets
        self.attentions = attentions
        upsampler = upsamples ? Upsample2D(scope["upsamplers", 0], outChannels) : nil
        takesSkips = !skipChannels.isEmpty
    }

    /// - Parameters:
    ///   - x: [B, H, W, in]
    ///   - skips: the encoder outputs that have not been used yet; each layer removes the last
    ///   - time: silu(temb) [B, timeChannels], or nil
    /// - Returns: [B, 2H, 2W, out]
    package func callAsFunction(
        _ tape: Tape, _ x: Tensor, skips: inout [Tensor], time: Tensor? = nil
    ) -> Tensor {
        var h = x
        for (layer, resnet) in resnets.enumerated() {
            if takesSkips { h = tape.concatenate(h, skips.removeLast()) }
            h = resnet(tape, h, time: time)
            if !attentions.isEmpty { h = attentions[layer](tape, h) }
        }
        return upsampler.map { $0(tape, h) } ?? h
    }
}
