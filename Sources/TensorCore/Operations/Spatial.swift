import CKernels

extension Tape {
    /// Nearest-neighbour upsampling by 2.
    ///
    /// - Parameter x: [B, H, W, C]
    /// - Returns: [B, 2H, 2W, C]
    package func upsample(_ x: Tensor) -> Tensor {
        let (B, H, W, C) = (x.shape[0], x.shape[1], x.shape[2], x.shape[3])
        let y = make([B, 2 * H, 2 * W, C], dtype: x.dtype, needsGradient: x.needsGradient)
        let dtype = x.dtype.kernel
        record("upsample", .elementwise, reads: [x], writes: [y]) { _ in
            ck_upsample_forward(dtype, B, H, W, C, x.pointer, y.pointer)
        }
        differentiate(y) { gy in
            guard let (gx, addend) = self.gradientSlot(of: x) else { return }
            self.record(
                "upsample", .elementwise, reads: [gy] + (addend.map { [$0] } ?? []), writes: [gx]
            ) { _ in ck_upsample_backward(dtype, B, H, W, C, gy.pointer, addend?.pointer, gx.pointer) }
        }
        return y
    }

    /// Mean of 2×2 blocks.
    ///
    /// - Parameter x: [B, H, W, C], H and W even
    /// - Returns: [B, H/2, W/2, C]
    package func averagePool(_ x: Tensor) -> Tensor {
        let (B, H, W, C) = (x.shape[0], x.shape[1], x.shape[2], x.shape[3])
        precondition(H % 2 == 0 && W % 2 == 0, "average pooling of \(x.shape)")
        let y = make([B, H / 2, W / 2, C], dtype: x.dtype, needsGradient: x.needsGradient)
        let dtype = x.dtype.kernel
        record("average pool", .elementwise, reads: [x], writes: [y]) { _ in
            ck_average_pool_forward(dtype, B, H, W, C, x.pointer, y.pointer)
        }
        differentiate(y) { gy in
            guard let (gx, addend) = self.gradientSlot(of: x) else { return }
            self.record(
                "average pool", .elementwise, reads: [gy] + (addend.map { [$0] } ?? []), writes: [gx]
            ) { _ in ck_average_pool_backward(dtype, B, H, W, C, gy.pointer, addend?.pointer, gx.pointer) }
        }
        return y
    }

    /// Concatenation along channels.
    ///
    /// - Parameters:
    ///   - a: [..., A]
    ///   - b: [..., B]
    /// - Returns: [..., A + B]
    package func concatenate(_ a: Tensor, _ b: Tensor) -> Tensor {
        let (A, B) = (a.shape.last!, b.shape.last!)
        let rows = a.count / A
        precondition(a.shape.dropLast() == b.shape.dropLast(), "concatenation of \(a.shape) and \(b.shape)")
        let y = make(
            a.shape.dropLast() + [A + B], dtype: a.dtype, needsGradient: a.needsGradient || b.needsGradient)
        let dtype = a.dtype.kernel
        record("concatenate", .elementwise, reads: [a, b], writes: [y]) { _ in
            ck_concat_forward(dtype, rows, A, B, a.pointer, b.pointer, y.pointer)
        }
        differentiate(y) { gy in
            for (part, start, width) in [(a, 0, A), (b, A, B)] {
                guard let (slot, addend) = self.gradientSlot(of: part) else { continue }
                self.record(
                    "concatenate", .elementwise, reads: [gy] + (addend.map { [$0] } ?? []), writes: [slot]
                ) { _ in
                    ck_slice_columns(
                        dtype, rows, A + B, start, width, gy.pointer, addend?.pointer, slot.pointer)
                }
            }
        }
        return y
    }

    /// Selects `width` channels, beginning with channel `start`.
    ///
    /// - Parameter x: [..., C]
    /// - Returns: [..., width]
    package func slice(_ x: Tensor, from start: Int, width: Int) -> Tensor {
        let C = x.shape.last!
        precondition(start >= 0 && start + width <= C, "channels \(start)..<\(start + width) of \(C)")
        let rows = x.count / C
        let y = make(x.shape.dropLast() + [width], dtype: x.dtype, needsGradient: x.needsGradient)
        let dtype = x.dtype.kernel
        record("slice", .elementwise, reads: [x], writes: [y]) { _ in
            ck_slice_columns(dtype, rows, C, start, width, x.pointer, nil, y.pointer)
        }
        differentiate(y) { gy in
            let gx = self.make(x.shape, dtype: x.dtype, needsGradient: false)
            self.record("slice", .elementwise, reads: [gy], writes: [gx]) { _ in
                ck_fill(dtype, gx.count, 0, gx.pointer)
                ck_place_columns(dtype, rows, C, start, width, gy.pointer, gx.pointer)
            }
            self.contribute(gx, to: x)
        }
        return y
    }
}
