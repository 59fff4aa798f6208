import CKernels

// B: samples, P: pixels per sample, C: channels.

extension Tape {
    /// y = x·sigmoid(x)
    package func silu(_ x: Tensor) -> Tensor {
        let y = make(x.shape, dtype: x.dtype, needsGradient: x.needsGradient)
        let (dtype, n) = (x.dtype.kernel, x.count)
        record("silu", .elementwise, reads: [x], writes: [y], inPlace: (y, x)) { _ in
            ck_silu_forward(dtype, n, x.pointer, y.pointer)
        }
        differentiate(y) { gy in
            guard let (gx, addend) = self.gradientSlot(of: x) else { return }
            self.record(
                "silu", .elementwise, reads: [x, gy] + (addend.map { [$0] } ?? []), writes: [gx],
                inPlace: (gx, gy)
            ) { _ in ck_silu_backward(dtype, n, x.pointer, gy.pointer, addend?.pointer, gx.pointer) }
        }
        return y
    }

    /// y = scale·(a + b): a residual sum; diffusers' `output_scale_factor` is 1/scale.
    package func add(_ a: Tensor, _ b: Tensor, scale: Float = 1) -> Tensor {
        precondition(a.shape == b.shape && a.dtype == b.dtype, "sum of \(a.shape) and \(b.shape)")
        let y = make(a.shape, dtype: a.dtype, needsGradient: a.needsGradient || b.needsGradient)
        recordAdd("sum", a, b, scaleA: scale, scaleB: scale, into: y)
        differentiate(y) { gy in
            let scaled = scale == 1 ? gy : self.scaled(gy, by: scale)
            self.contribute(scaled, to: a)
            self.contribute(scaled, to: b)
        }
        return y
    }

    /// y = factor·x
    package func scale(_ x: Tensor, by factor: Float) -> Tensor {
        let y = scaled(x, by: factor, needsGradient: x.needsGradient)
        differentiate(y) { gy in self.contribute(self.scaled(gy, by: factor), to: x) }
        return y
    }

    private func scaled(_ x: Tensor, by factor: Float, needsGradient: Bool = false) -> Tensor {
        let y = make(x.shape, dtype: x.dtype, needsGradient: needsGradient)
        let (dtype, n) = (x.dtype.kernel, x.count)
        record("scale", .elementwise, reads: [x], writes: [y], inPlace: (y, x)) { _ in
            ck_add(dtype, n, factor, x.pointer, 0, nil, y.pointer)
        }
        return y
    }

    func recordAdd(
        _ name: String, _ a: Tensor, _ b: Tensor, scaleA: Float, scaleB: Float, into y: Tensor
    ) {
        let (dtype, n) = (a.dtype.kernel, a.count)
        record(name, .elementwise, reads: [a, b], writes: [y], inPlace: (y, a)) { _ in
            ck_add(dtype, n, scaleA, a.pointer, scaleB, b.pointer, y.pointer)
        }
    }

    /// y[b,p,c] = x[b,p,c] + t[b,c]: adds the projected time embedding.
    ///
    /// - Parameters:
    ///   - x: [B, ..., C]
    ///   - t: [B, C]
    package func addChannels(_ x: Tensor, _ t: Tensor) -> Tensor {
        let (B, C) = (x.shape[0], x.shape.last!)
        let P = x.count / (B * C)
        precondition(t.shape == [B, C] && t.dtype == x.dtype, "channels of \(x.shape) from \(t.shape)")
        let y = make(x.shape, dtype: x.dtype, needsGradient: x.needsGradient || t.needsGradient)
        let dtype = x.dtype.kernel
        record("time embedding sum", .elementwise, reads: [x, t], writes: [y], inPlace: (y, x)) { _ in
            ck_add_channels_forward(dtype, B, P, C, x.pointer, t.pointer, y.pointer)
        }
        differentiate(y) { gy in
            self.contribute(gy, to: x)
            guard let (gt, addend) = self.gradientSlot(of: t) else { return }
            self.record(
                "time embedding sum", .elementwise, reads: [gy] + (addend.map { [$0] } ?? []), writes: [gt]
            ) { _ in
                ck_add_channels_backward(dtype, B, P, C, gy.pointer, addend?.pointer, gt.pointer)
            }
        }
        return y
    }

    /// y = x·(1 + s) + t per sample and channel: `resnet_time_scale_shift` "scale_shift".
    ///
    /// - Parameters:
    ///   - x: [B, ..., C]
    ///   - st: [B, 2C], scale then shift
    package func scaleShift(_ x: Tensor, _ st: Tensor) -> Tensor {
        let (B, C) = (x.shape[0], x.shape.last!)
        let P = x.count / (B * C)
        precondition(st.shape == [B, 2 * C] && st.dtype == x.dtype, "scale and shift \(st.shape)")
        let y = make(x.shape, dtype: x.dtype, needsGradient: x.needsGradient || st.needsGradient)
        let dtype = x.dtype.kernel
        record("scale shift", .elementwise, reads: [x, st], writes: [y]) { _ in
            ck_scale_shift_forward(dtype, B, P, C, x.pointer, st.pointer, y.pointer)
        }
        differentiate(y) { gy in
            let gst = self.make(st.shape, dtype: st.dtype, needsGradient: false)
            let slot = self.gradientSlot(of: x)
            let gx = slot?.slot ?? self.make(x.shape, dtype: x.dtype, needsGradient: false)
            let addend = slot?.addend
            self.record(
                "scale shift", .elementwise, reads: [x, st, gy] + (addend.map { [$0] } ?? []),
                writes: [gx, gst]
            ) { _ in
                ck_scale_shift_backward(
                    dtype, B, P, C, x.pointer, st.pointer, gy.pointer, addend?.pointer, gx.pointer,
                    gst.pointer)
            }
            self.contribute(gst, to: st)
        }
        return y
    }

    /// Inverted dropout, active if the tape records gradients. Masks are keyed by (seed, step, global sample,
    /// layer), and the backward pass draws them again instead of storing them.
    package func dropout(_ x: Tensor, _ p: Float) -> Tensor {
        guard recordsGradients, p > 0 else { return x }
        precondition(p < 1, "dropout \(p) must be below 1")
        let layer = dropoutLayers
        dropoutLayers += 1
        let (B, dtype) = (x.shape[0], x.dtype.kernel)
        let n = x.count / B
        let y = make(x.shape, dtype: x.dtype, needsGradient: x.needsGradient)
        record("dropout", .elementwise, reads: [x], writes: [y], inPlace: (y, x)) { context in
            ck_dropout(
                dtype, B, n, p, context.seed, layer, context.step, context.samples, x.pointer, nil, y.pointer)
        }
        differentiate(y) { gy in
            guard let (gx, addend) = self.gradientSlot(of: x) else { return }
            self.record(
                "dropout", .elementwise, reads: [gy] + (addend.map { [$0] } ?? []), writes: [gx]
            ) { context in
                ck_dropout(
                    dtype, B, n, p, context.seed, layer, context.step, context.samples, gy.pointer,
                    addend?.pointer, gx.pointer)
            }
        }
        return y
    }

    /// Converts the elements to another type.
    package func cast(_ x: Tensor, to dtype: DType) -> Tensor {
        guard x.dtype != dtype else { return x }
        let y = make(x.shape, dtype: dtype, needsGradient: x.needsGradient)
        recordCast(x, y)
        differentiate(y) { gy in
            guard x.needsGradient else { return }
            let gx = self.make(x.shape, dtype: x.dtype, needsGradient: false)
            self.recordCast(gy, gx)
            self.contribute(gx, to: x)
        }
        return y
    }

    private func recordCast(_ x: Tensor, _ y: Tensor) {
        let n = x.count
        record("cast", .elementwise, reads: [x], writes: [y]) { _ in
            ck_cast(x.dtype.kernel, y.dtype.kernel, n, x.pointer, y.pointer)
        }
    }

    /// Sinusoidal embedding of timesteps (Ho et al., 2020, after Vaswani et al., 2017).
    ///
    /// - Parameter t: [B], fp32
    /// - Returns: [B, dim]
    package func timestepEmbedding(
        _ t: Tensor, dim: Int, flipSinToCos: Bool, freqShift: Float
    ) -> Tensor {
        let y = make([t.count, dim], dtype: dtype, needsGradient: false)
        record("timestep embedding", .elementwise, reads: [t], writes: [y]) { _ in
            ck_timestep_embedding(
                y.dtype.kernel, t.count, dim, t.floats.baseAddress, flipSinToCos ? 1 : 0, freqShift,
                y.pointer)
        }
        return y
    }
}

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
