import TensorCore

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
