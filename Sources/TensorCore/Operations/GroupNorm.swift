import CKernels

extension Tape {
    /// Group normalization, optionally with fused SiLU (Wu and He, 2018):
    /// y = act(weight·(x − mean)/sqrt(var + eps) + bias), with statistics over a sample's pixels and a group's
    /// channels.
    ///
    /// - Parameters:
    ///   - x: [B, ..., C]
    ///   - weight, bias: [C], fp32
    /// - Returns: x's shape
    package func groupNorm(
        _ x: Tensor, _ weight: Parameter, _ bias: Parameter, groups: Int, eps: Float, silu: Bool = false
    ) -> Tensor {
        use(weight, bias)
        let (B, C) = (x.shape[0], x.shape.last!)
        let P = x.count / (B * C)
        precondition(C % groups == 0 && weight.count == C, "\(weight.name): \(C) channels, \(groups) groups")
        let y = make(x.shape, dtype: x.dtype, needsGradient: recordsGradients)
        let mean = make([B, groups], dtype: .float32, needsGradient: false)
        let rstd = make([B, groups], dtype: .float32, needsGradient: false)
        let dtype = x.dtype.kernel
        let scratch = ck_group_norm_scratch_bytes(B, P, C, groups)
        record(
            weight.name, .norm, reads: [x], writes: [y, mean, rstd], inPlace: (y, x), scratch: scratch
        ) { context in
            ck_group_norm_forward(
                dtype, B, P, C, groups, eps, silu ? 1 : 0, x.pointer, weight.values.baseAddress,
                bias.values.baseAddress, y.pointer, mean.floats.baseAddress, rstd.floats.baseAddress,
                context.scratch)
        }

        differentiate(y) { gy in
            // The gradient of the input is computed even if it is not needed, since the kernel computes it
            // together with the gradients of the parameters.
            let slot = self.gradientSlot(of: x)
            let gx = slot?.slot ?? self.make(x.shape, dtype: x.dtype, needsGradient: false)
            let addend = slot?.addend
            self.record(
                weight.name, .norm, reads: [x, gy, mean, rstd] + (addend.map { [$0] } ?? []), writes: [gx],
                inPlace: (gx, addend ?? gy), gradientsOf: [weight, bias], scratch: scratch
            ) { context in
                ck_group_norm_backward(
                    dtype, B, P, C, groups, silu ? 1 : 0, x.pointer, weight.values.baseAddress,
                    bias.values.baseAddress, mean.floats.baseAddress, rstd.floats.baseAddress, gy.pointer,
                    addend?.pointer, gx.pointer, weight.gradient.baseAddress, bias.gradient.baseAddress,
                    context.accumulatesGradients ? 1 : 0, context.scratch)
            }
        }
        return y
    }
}
