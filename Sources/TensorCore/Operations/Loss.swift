import CKernels

/// A loss: one value per sample, and the gradient with respect to the output.
package struct SampleLoss {
    /// The output that the loss is computed from, and the gradient of the weighted mean loss with respect to
    /// it.
    package let output: Tensor
    package let gradient: Tensor
    /// Unweighted sum over each sample's elements; valid after a run.
    package let sums: LossSums
}

/// Sums of a loss over each sample's elements, in double precision.
package final class LossSums {
    /// One value per sample.
    package internal(set) var values: [Double]
    init(batch: Int) { values = Array(repeating: 0, count: batch) }
}

extension Tape {
    /// The error of one element.
    package enum ErrorNorm: Sendable { case squared, absolute }

    /// Error of `x` against a target: Σ (x − target)² or Σ |x − target| over each sample's elements.
    ///
    /// - Parameters:
    ///   - x: [B, ...]
    ///   - target: x's shape, fp32
    ///   - weight: [B], fp32: factor of each sample's gradient (1/(samples·elements) for a mean)
    package func error(_ norm: ErrorNorm, _ x: Tensor, _ target: Tensor, weight: Tensor) -> SampleLoss {
        precondition(x.shape == target.shape && target.dtype == .float32, "target \(target.shape)")
        let B = x.shape[0]
        precondition(weight.count == B && weight.dtype == .float32, "one weight a sample")
        let n = x.count / B
        let sums = LossSums(batch: B)
        let gradient = make(x.shape, dtype: x.dtype, needsGradient: false)
        let dtype = x.dtype.kernel
        record("loss", .elementwise, reads: [x, target, weight], writes: [gradient]) { _ in
            let w = weight.floats.baseAddress
            switch norm {
            case .squared:
                ck_squared_error(
                    dtype, B, n, x.pointer, target.floats.baseAddress, w, &sums.values, gradient.pointer)
            case .absolute:
                ck_absolute_error(
                    dtype, B, n, x.pointer, target.floats.baseAddress, w, &sums.values, gradient.pointer)
            }
        }
        return SampleLoss(output: x, gradient: gradient, sums: sums)
    }

    /// Absolute error of the differences between neighbouring pixels, which penalizes blurred edges but not
    /// flat areas.
    ///
    /// - Parameters:
    ///   - x, target: [B, H, W, C], the target fp32
    ///   - weight: [B], fp32, as in `error`
    package func edgeError(_ x: Tensor, _ target: Tensor, weight: Tensor) -> SampleLoss {
        precondition(x.shape == target.shape && x.shape.count == 4, "edges of \(x.shape)")
        let (B, H, W, C) = (x.shape[0], x.shape[1], x.shape[2], x.shape[3])
        let sums = LossSums(batch: B)
        let gradient = make(x.shape, dtype: x.dtype, needsGradient: false)
        let dtype = x.dtype.kernel
        record("edge loss", .elementwise, reads: [x, target, weight], writes: [gradient]) { _ in
            ck_edge_error(
                dtype, B, H, W, C, x.pointer, target.floats.baseAddress, weight.floats.baseAddress,
                &sums.values, gradient.pointer)
        }
        return SampleLoss(output: x, gradient: gradient, sums: sums)
    }

    /// Samples a diagonal Gaussian, z = mean + exp(logvar/2)·noise, and adds the gradient of its KL
    /// divergence from the standard normal distribution, ½·Σ(mean² + exp(logvar) − 1 − logvar) (Kingma and
    /// Welling, 2014, appendix B).
    ///
    /// - Parameters:
    ///   - moments: [B, H, W, 2C], mean then log-variance
    ///   - noise: [B, H, W, C], fp32
    ///   - klWeight: weight of each sample's divergence in the differentiated loss
    /// - Returns: z [B, H, W, C] and each sample's divergence
    package func gaussianSample(_ moments: Tensor, noise: Tensor, klWeight: Float) -> (Tensor, LossSums) {
        let (B, C) = (moments.shape[0], moments.shape.last! / 2)
        let P = moments.count / (B * 2 * C)
        precondition(noise.count == B * P * C && noise.dtype == .float32, "noise \(noise.shape)")
        let z = make(moments.shape.dropLast() + [C], dtype: moments.dtype, needsGradient: recordsGradients)
        let divergence = LossSums(batch: B)
        let dtype = moments.dtype.kernel
        record("gaussian", .elementwise, reads: [moments, noise], writes: [z]) { _ in
            ck_gaussian_sample_forward(
                dtype, B, P, C, moments.pointer, noise.floats.baseAddress, z.pointer)
            ck_gaussian_kl(dtype, B, P, C, moments.pointer, &divergence.values)
        }
        differentiate(z) { gz in
            let gmoments = self.make(moments.shape, dtype: moments.dtype, needsGradient: false)
            self.record("gaussian", .elementwise, reads: [moments, noise, gz], writes: [gmoments]) { _ in
                ck_gaussian_sample_backward(
                    dtype, B, P, C, moments.pointer, noise.floats.baseAddress, gz.pointer, klWeight,
                    gmoments.pointer)
            }
            self.contribute(gmoments, to: moments)
        }
        return (z, divergence)
    }
}
