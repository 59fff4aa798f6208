import CKernels

/// Zero padding around an image, in pixels.
package struct Padding: Hashable, Sendable {
    package var top: Int, left: Int, bottom: Int, right: Int

    package init(top: Int, left: Int, bottom: Int, right: Int) {
        (self.top, self.left, self.bottom, self.right) = (top, left, bottom, right)
    }
    /// The same on all four sides.
    package static func all(_ width: Int) -> Padding {
        Padding(top: width, left: width, bottom: width, right: width)
    }
    /// Bottom and right only: diffusers' `downsample_padding` 0, as in the encoder of every autoencoder.
    package static let bottomRight = Padding(top: 0, left: 0, bottom: 1, right: 1)
}

/// The parameters for which a convolution kernel is created: a direction and all sizes.
package struct ConvolutionCase: Hashable, Sendable {
    package enum Direction: String, Sendable { case forward, backwardData, backwardWeights }

    package var direction: Direction
    /// Input [batch, height, width, inChannels].
    package var batch: Int, height: Int, width: Int, inChannels: Int
    package var outChannels: Int
    package var kernelHeight: Int, kernelWidth: Int
    package var stride: Int
    package var padding: Padding
    package var dtype: DType
    /// Type of the weights in the store.
    package var weightType: DType = .float32
    package var hasBias: Bool
    /// Whether another tensor is added to the result of the forward pass.
    package var hasAddend: Bool

    package var outHeight: Int { (height + padding.top + padding.bottom - kernelHeight) / stride + 1 }
    package var outWidth: Int { (width + padding.left + padding.right - kernelWidth) / stride + 1 }

    /// FLOPs of direct convolution, two per multiply-add; the same in every direction.
    package var flops: Int {
        2 * batch * outHeight * outWidth * outChannels * inChannels * kernelHeight * kernelWidth
    }

    /// The same sizes in another direction.
    func turned(_ direction: Direction) -> ConvolutionCase {
        var other = self
        other.direction = direction
        if direction == .backwardData { other.hasBias = false }
        other.hasAddend = false
        return other
    }

    /// e.g. "3×3 16×32×32×128→256".
    package var summary: String {
        "\(kernelHeight)×\(kernelWidth) \(batch)×\(height)×\(width)×\(inChannels)→\(outChannels)"
            + (stride > 1 ? " stride \(stride)" : "")
    }

    var kernelShape: ck_conv_shape {
        ck_conv_shape(
            B: batch, H: height, W: width, C: inChannels, O: outChannels, kernelH: kernelHeight,
            kernelW: kernelWidth, stride: stride, padTop: padding.top, padLeft: padding.left,
            padBottom: padding.bottom, padRight: padding.right, dtype: dtype.kernel,
            weights: weightType.kernel)
    }

    var kernelKind: ck_conv_kind {
        switch direction {
        case .forward: CK_CONV_FORWARD
        case .backwardData: CK_CONV_BACKWARD_DATA
        case .backwardWeights: CK_CONV_BACKWARD_WEIGHTS
        }
    }
}
