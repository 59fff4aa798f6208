import TensorCore

/// Settings shared by the residual blocks and attentions of a model.
package struct BlockSettings: Sendable {
    /// Width of the time embedding; nil for blocks without one (autoencoders).
    package var timeChannels: Int?
    package var groups: Int
    package var eps: Float
    /// How the time embedding is applied: added before the second norm, or as scale and shift after it
    /// (Dhariwal and Nichol, 2021).
    package var timeScaleShift = TimeScaleShift.add
    package var dropout: Float = 0
    /// Divisor of residual sums.
    package var outputScaleFactor: Float = 1

    package init(timeChannels: Int?, groups: Int, eps: Float) {
        (self.timeChannels, self.groups, self.eps) = (timeChannels, groups, eps)
    }
}

/// diffusers' ResnetBlock2D:
///
///     h = conv1(silu(norm1(x)))
///     h = norm2(h + proj(silu(temb)))
///     y = (shortcut(x) + conv2(silu(h))) / factor
package struct ResnetBlock2D {
    let norm1: GroupNorm
    let convShortcut: Conv2D?
    let conv1: Conv2D
    let timeProjection: Linear?
    let norm2: GroupNorm
    let conv2: Conv2D
    let settings: BlockSettings

    package init(_ scope: ParameterScope, _ inChannels: Int, _ outChannels: Int, _ settings: BlockSettings) {
        let (groups, eps) = (settings.groups, settings.eps)
        norm1 = GroupNorm(scope["norm1"], inChannels, groups: groups, eps: eps)
        convShortcut =
            inChannels == outChannels
            ? nil : Conv2D(scope["conv_shortcut"], inChannels, outChannels, kernel: 1)
        conv1 = Conv2D(scope["conv1"], inChannels, outChannels)
        timeProjection = settings.timeChannels.map {
            let width = settings.timeScaleShift == .scaleShift ? 2 * outChannels : outChannels
            return Linear(scope["time_emb_proj"], $0, width)
        }
        norm2 = GroupNorm(scope["norm2"], outChannels, groups: groups, eps: eps)
        conv2 = Conv2D(scope["conv2"], outChannels, outChannels)
        self.settings = settings
    }

    /// - Parameters:
    ///   - x: [B, H, W, in]
    ///   - time: [B, timeChannels], silu(temb); the same for all blocks, so the model computes it once
    /// - Returns: [B, H, W, out]
    package func callAsFunction(_ tape: Tape, _ x: Tensor, time: Tensor?) -> Tensor {
        precondition((time == nil) == (timeProjection == nil), "time embedding for \(norm1.weight.name)")
        var h = norm1(tape, x, silu: true)
        // Record the shortcut between norm1 and conv1: in the backward pass its gradient then exists before
        // norm1's is written, and one pass sums both.
        let residual = convShortcut.map { $0(tape, x) } ?? x
        h = conv1(tape, h)
        if let timeProjection, let time {
            let projected = timeProjection(tape, time)
            switch settings.timeScaleShift {
            case .add: h = norm2(tape, tape.addChannels(h, projected), silu: true)
            case .scaleShift: h = tape.silu(tape.scaleShift(norm2(tape, h), projected))
            }
        } else {
            h = norm2(tape, h, silu: true)
        }
        let y = conv2(tape, tape.dropout(h, settings.dropout), addend: residual)
        let factor = settings.outputScaleFactor
        return factor == 1 ? y : tape.scale(y, by: 1 / factor)
    }
}
