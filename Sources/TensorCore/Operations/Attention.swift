import CKernels

extension Tape {
    /// Softmax attention, softmax(q·kᵀ/sqrt(D))·v per head (Vaswani et al., 2017, equation 1). Memory is
    /// linear in N: the backward pass recomputes the attention weights block by block.
    ///
    /// - Parameters:
    ///   - q, k, v: [B, N, heads·D]
    ///   - exactProducts: multiply bf16 tensors in fp32, instead of in bf16 where the processor supports it
    /// - Returns: [B, N, heads·D]
    package func attention(
        _ q: Tensor, _ k: Tensor, _ v: Tensor, heads: Int, exactProducts: Bool = false
    ) -> Tensor {
        let (B, N, C) = (q.shape[0], q.shape[1], q.shape[2])
        precondition(k.shape == q.shape && v.shape == q.shape && C % heads == 0, "attention over \(q.shape)")
        let D = C / heads
        let scale = 1 / Float(D).squareRoot()
        let needsGradient = q.needsGradient || k.needsGradient || v.needsGradient
        let o = make(q.shape, dtype: q.dtype, needsGradient: needsGradient)
        let lse = make([B, heads, N], dtype: .float32, needsGradient: false)
        let dtype = q.dtype.kernel
        let product = 2 * B * N * N * C  // FLOPs of the scores, or of their product with v
        // For bf16 tensors the products are computed in bf16 too, except in the portable reference.
        let native = dtype == CK_BF16 && backend != .openBLAS && !exactProducts
        let scratch =
            native
            ? ck_attention_bf16_scratch_bytes(B, N, heads, D) : ck_attention_scratch_bytes(B, N, heads, D)
        record(
            "attention", .attention, reads: [q, k, v], writes: [o, lse], scratch: scratch, flops: 2 * product
        ) { context in
            if native {
                ck_attention_bf16_forward(
                    B, N, heads, D, scale, q.pointer, k.pointer, v.pointer, C, o.pointer,
                    lse.floats.baseAddress, context.scratch)
            } else {
                ck_attention_forward(
                    dtype, B, N, heads, D, scale, q.pointer, k.pointer, v.pointer, C, o.pointer,
                    lse.floats.baseAddress, context.scratch)
            }
        }
        differentiate(o) { go in
            let gradients = [q, k, v].map { self.make($0.shape, dtype: $0.dtype, needsGradient: false) }
            let (gq, gk, gv) = (gradients[0], gradients[1], gradients[2])
            self.record(
                "attention", .attention, reads: [q, k, v, o, lse, go], writes: gradients, scratch: scratch,
                flops: 4 * product
            ) { context in
                if native {
                    ck_attention_bf16_backward(
                        B, N, heads, D, scale, q.pointer, k.pointer, v.pointer, C, o.pointer,
                        lse.floats.baseAddress, go.pointer, gq.pointer, gk.pointer, gv.pointer,
                        context.scratch)
                } else {
                    ck_attention_backward(
                        dtype, B, N, heads, D, scale, q.pointer, k.pointer, v.pointer, C, o.pointer,
                        lse.floats.baseAddress, go.pointer, gq.pointer, gk.pointer, gv.pointer,
                        context.scratch)
                }
            }
            self.contribute(gq, to: q)
            self.contribute(gk, to: k)
            self.contribute(gv, to: v)
        }
        return o
    }

    /// Matrix product of two fp32 tensors, y = a·b or a·bᵀ.
    ///
    /// - Parameters:
    ///   - b: [K, N], or [N, K] if `transposed`
    ///   - b: [K, N], or [N, K] where `transposed`
    /// - Returns: [M, N]
    package func matmul(_ a: Tensor, _ b: Tensor, transposed: Bool = false) -> Tensor {
        let (M, K) = (a.shape[0], a.shape[1])
        let N = transposed ? b.shape[0] : b.shape[1]
        precondition(a.dtype == .float32 && b.dtype == .float32, "matmul is fp32")
        precondition(b.shape == (transposed ? [N, K] : [K, N]), "product of \(a.shape) and \(b.shape)")
        let y = make([M, N], dtype: .float32, needsGradient: a.needsGradient || b.needsGradient)
        let flops = 2 * M * N * K
        record("matmul", .matmul, reads: [a, b], writes: [y], flops: flops) { _ in
            sgemm(a, b, y, false, transposed, M, N, K)
        }
        differentiate(y) { gy in
            if a.needsGradient {
                let ga = self.make(a.shape, dtype: .float32, needsGradient: false)
                self.record("matmul", .matmul, reads: [gy, b], writes: [ga], flops: flops) { _ in
                    sgemm(gy, b, ga, false, !transposed, M, K, N)
                }
                self.contribute(ga, to: a)
            }
            if b.needsGradient {
                let gb = self.make(b.shape, dtype: .float32, needsGradient: false)
                self.record("matmul", .matmul, reads: [gy, a], writes: [gb], flops: flops) { _ in
                    if transposed {
                        sgemm(gy, a, gb, true, false, N, K, M)
                    } else {
                        sgemm(a, gy, gb, true, false, K, N, M)
                    }
                }
                self.contribute(gb, to: b)
            }
        }
        return y
    }
}

/// c [M, N] = op(a)·op(b), op(a) is [M, K].
private func sgemm(
    _ a: Tensor, _ b: Tensor, _ c: Tensor, _ transA: Bool, _ transB: Bool, _ M: Int, _ N: Int, _ K: Int
) {
    ck_sgemm(
        transA ? 1 : 0, transB ? 1 : 0, M, N, K, 1, a.floats.baseAddress, transA ? M : K,
        b.floats.baseAddress, transB ? K : N, 0, c.floats.baseAddress, N)
}
