import TensorCore

/// Halves height and width by a 3×3 convolution with stride 2, diffusers' Downsample2D.
package struct Downsample2D {
    let conv: Conv2D

    /// - Parameter padding: on all sides; 0 pads one row at the bottom and one column on the right, as in
    ///   diffusers.
    package init(_ scope: ParameterScope, _ channels: Int, padding: Int) {
        conv = Conv2D(
            scope["conv"], channels, channels, stride: 2,
            padding: padding == 0 ? .bottomRight : .all(padding))
    }

    /// - Parameter x: [B, H, W, C]
    /// - Returns: [B, H/2, W/2, C]
    package func callAsFunction(_ tape: Tape, _ x: Tensor) -> Tensor { conv(tape, x) }
}

/// Doubles height and width by nearest-neighbor upsampling, followed by a 3×3 convolution: diffusers'
/// Upsample2D.
package struct Upsample2D {
    let conv: Conv2D

    package init(_ scope: ParameterScope, _ channels: Int) {
        conv = Conv2D(scope["conv"], channels, channels)
    }

    /// - Parameter x: [B, H, W, C]
    /// - Returns: [B, 2H, 2W, C]
    package func callAsFunction(_ tape: Tape, _ x: Tensor) -> Tensor { conv(tape, tape.upsample(x)) }
}
