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
        (resnets, attentions) = levelLayers(
            scope, inputs: (0..<layers).map { $0 == 0 ? inChannels : outChannels }, outChannels, headDim,
            settings)
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

/// Two residual blocks with an attention in between, at the lowest resolution: diffusers' UNetMidBlock2D.
package struct UNetMidBlock2D {
    let resnet0: ResnetBlock2D
    let attention: Attention?
    let resnet1: ResnetBlock2D

    /// - Parameters:
    ///   - headDim: channels of an attention head; nil for no attention
    ///   - attentionGroups: groups of the attention's norm; nil for no norm
    package init(
        _ scope: ParameterScope, _ channels: Int, headDim: Int?, attentionGroups: Int?,
        _ settings: BlockSettings
    ) {
        resnet0 = ResnetBlock2D(scope["resnets", 0], channels, channels, settings)
        attention = headDim.map {
            // Use exact products in autoencoders only: their errors are visible in every image, and a single
            // attention is cheap.
            Attention(
                scope["attentions", 0], channels, headDim: $0, groups: attentionGroups, eps: settings.eps,
                outputScaleFactor: settings.outputScaleFactor, exactProducts: settings.timeChannels == nil)
        }
        resnet1 = ResnetBlock2D(scope["resnets", 1], channels, channels, settings)
    }

    /// - Parameters:
    ///   - x: [B, H, W, C]
    ///   - time: silu(temb) [B, timeChannels], or nil
    /// - Returns: [B, H, W, C]
    package func callAsFunction(_ tape: Tape, _ x: Tensor, time: Tensor? = nil) -> Tensor {
        var h = resnet0(tape, x, time: time)
        if let attention { h = attention(tape, h) }
        return resnet1(tape, h, time: time)
    }
}

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
        (resnets, attentions) = levelLayers(
            scope,
            inputs: (0..<layers).map {
                ($0 == 0 ? inChannels : outChannels) + (skipChannels.isEmpty ? 0 : skipChannels[$0])
            }, outChannels, headDim, settings)
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

/// The residual blocks of a level, each with attention after it if `headDim` is given.
///
/// - Parameter inputs: channels of the input of each residual block.
private func levelLayers(
    _ scope: ParameterScope, inputs: [Int], _ channels: Int, _ headDim: Int?, _ settings: BlockSettings
) -> (resnets: [ResnetBlock2D], attentions: [Attention]) {
    var layers: (resnets: [ResnetBlock2D], attentions: [Attention]) = ([], [])
    for (layer, input) in inputs.enumerated() {
        layers.resnets.append(ResnetBlock2D(scope["resnets", layer], input, channels, settings))
        guard let headDim else { continue }
        layers.attentions.append(
            Attention(
                scope["attentions", layer], channels, headDim: headDim, groups: settings.groups,
                eps: settings.eps))
    }
    return layers
}
