import CKernels

extension Tape {
    /// y = scale·x + shift, with scalar `scale` and `shift`.
    package func affine(_ x: Tensor, scale factor: Float, shift: Float) -> Tensor {
        let y = make(x.shape, dtype: x.dtype, needsGradient: x.needsGradient)
        let (dtype, n) = (x.dtype.kernel, x.count)
        record("affine", .elementwise, reads: [x], writes: [y]) { _ in
            ck_fill(dtype, n, shift, y.pointer)
            ck_add(dtype, n, factor, x.pointer, 1, y.pointer, y.pointer)
        }
        differentiate(y) { gy in
            let gx = self.make(x.shape, dtype: x.dtype, needsGradient: false)
            self.record("affine", .elementwise, reads: [gy], writes: [gx], inPlace: (gx, gy)) { _ in
                ck_add(dtype, n, factor, gy.pointer, 0, nil, gx.pointer)
            }
            self.contribute(gx, to: x)
        }
        return y
    }
}
