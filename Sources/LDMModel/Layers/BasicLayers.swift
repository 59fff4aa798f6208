import TensorCore

/// Convolution with bias, torch.nn.Conv2d: initialized uniformly in ±1/sqrt(in·kernel²).
package struct Conv2D {
    package let weight: Parameter
    package let bias: Parameter
    let stride: Int
    let padding: Padding

    /// - Parameter padding: zero padding; by default it preserves the image size at stride 1.
    package init(
        _ scope: ParameterScope, _ inChannels: Int, _ outChannels: Int, kernel: Int = 3, stride: Int = 1,
        padding: Padding? = nil
    ) {
        let fanIn = inChannels * kernel * kernel
        weight = scope.declare("weight", [outChannels, inChannels, kernel, kernel], .uniform(fanIn: fanIn))
        bias = scope.declare("bias", [outChannels], .uniform(fanIn: fanIn))
        self.stride = stride
        self.padding = padding ?? .all(kernel / 2)
    }

    /// - Parameters:
    ///   - x: [B, H, W, in]
    ///   - addend: [B, H', W', out], added to the result in the same pass
    /// - Returns: [B, H', W', out]
    package func callAsFunction(_ tape: Tape, _ x: Tensor, addend: Tensor? = nil) -> Tensor {
        tape.convolution(x, weight, bias, stride: stride, padding: padding, addend: addend)
    }
}

/// Linear layer with bias, torch.nn.Linear: initialized uniformly in ±1/sqrt(in).
package struct Linear {
    package let weight: Parameter
    package let bias: Parameter

    package init(_ scope: ParameterScope, _ inFeatures: Int, _ outFeatures: Int) {
        weight = scope.declare("weight", [outFeatures, inFeatures], .uniform(fanIn: inFeatures))
        bias = scope.declare("bias", [outFeatures], .uniform(fanIn: inFeatures))
    }

    /// - Parameters:
    ///   - x: [..., in]
    ///   - addend: [..., out], added to the result in the same pass
    /// - Returns: [..., out]
    package func callAsFunction(_ tape: Tape, _ x: Tensor, addend: Tensor? = nil) -> Tensor {
        tape.linear(x, weight, bias, addend: addend)
    }
}

/// Group normalization with scale and offset, torch.nn.GroupNorm.
package struct GroupNorm {
    package let weight: Parameter
    package let bias: Parameter
    let groups: Int
    let eps: Float

    package init(_ scope: ParameterScope, _ channels: Int, groups: Int, eps: Float) {
        weight = scope.declare("weight", [channels], .ones)
        bias = scope.declare("bias", [channels], .zeros)
        self.groups = groups
        self.eps = eps
    }

    /// - Parameters:
    ///   - x: [B, ..., C]
    ///   - silu: apply SiLU in the same pass
    package func callAsFunction(_ tape: Tape, _ x: Tensor, silu: Bool = false) -> Tensor {
        tape.groupNorm(x, weight, bias, groups: groups, eps: eps, silu: silu)
    }
}
