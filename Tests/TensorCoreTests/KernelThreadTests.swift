import CKernels
import Foundation
import Testing

/// Results are bit-identical for any number of threads. The number of threads is set once per process, so
/// each number runs in the process of its own exit test.
@Suite struct KernelThreadTests {
    /// A hash of the results of all kernels that sum, or that divide work unevenly, for shapes large enough
    /// to be divided.
    static func hashOfResults() -> UInt64 {
        var hashes: [UInt64] = []
        func note(_ buffers: KernelBuffer...) {
            for buffer in buffers { hashes.append(ck_hash(buffer.count * buffer.size, buffer.pointer)) }
        }
        for dtype in [CK_F32, CK_BF16] {
            for B in [1, 3, 4] {
                let (P, C, G) = (1100, 48, 8)
                let x = KernelBuffer(dtype, normal: B * P * C, seed: 1)
                let gy = KernelBuffer(dtype, normal: B * P * C, seed: 2)
                let gamma = KernelBuffer(CK_F32, normal: C, seed: 3)
                let y = KernelBuffer(dtype, count: B * P * C)
                let (mean, rstd) = (KernelBuffer(CK_F32, count: B * G), KernelBuffer(CK_F32, count: B * G))
                let (ggamma, gbeta) = (KernelBuffer(CK_F32, count: C), KernelBuffer(CK_F32, count: C))
                let scratch = KernelBuffer(CK_F32, count: (ck_group_norm_scratch_bytes(B, P, C, G) + 3) / 4)
                ck_group_norm_forward(
                    dtype, B, P, C, G, 1e-5, 1, x.pointer, gamma.floats, gamma.floats, y.pointer, mean.floats,
                    rstd.floats, scratch.pointer)
                note(y, mean, rstd)
                ck_group_norm_backward(
                    dtype, B, P, C, G, 1, x.pointer, gamma.floats, gamma.floats, mean.floats, rstd.floats,
                    gy.pointer, nil, y.pointer, ggamma.floats, gbeta.floats, 0, scratch.pointer)
                note(y, ggamma, gbeta)

                let sums = KernelBuffer(dtype, count: B * 2 * C)
                ck_add_channels_backward(dtype, B, P, C, x.pointer, nil, sums.pointer)
                note(sums)
                ck_scale_shift_backward(
                    dtype, B, P, C, x.pointer, sums.copy().pointer, gy.pointer, nil, y.pointer, sums.pointer)
                note(y, sums)
                ck_dropout(
                    dtype, B, P * C, 0.1, 1, 2, 3, (0..<Int64(B)).map { $0 }, x.pointer, nil, y.pointer)
                note(y)
                var loss = [Double](repeating: 0, count: B)
                let target = KernelBuffer(CK_F32, normal: B * P * C, seed: 4)
                ck_squared_error(dtype, B, P * C, x.pointer, target.floats, nil, &loss, y.pointer)
                hashes += loss.map(\.bitPattern)
                ck_silu_backward(dtype, x.count, x.pointer, gy.pointer, nil, y.pointer)
                note(y)

                // One head of 24 channels, 550 tokens: two blocks of keys, five of queries.
                let (N, D) = (550, 24)
                let o = KernelBuffer(dtype, count: B * N * D)
                let lse = KernelBuffer(CK_F32, count: B * N)
                let gradients = (0..<3).map { _ in KernelBuffer(dtype, count: B * N * D) }
                let space = KernelBuffer(CK_F32, count: (ck_attention_scratch_bytes(B, N, 1, D) + 3) / 4)
                ck_attention_forward(
                    dtype, B, N, 1, D, 0.2, x.pointer, gy.pointer, x.pointer, D, o.pointer, lse.floats,
                    space.pointer)
                ck_attention_backward(
                    dtype, B, N, 1, D, 0.2, x.pointer, gy.pointer, x.pointer, D, o.pointer, lse.floats,
                    gy.pointer, gradients[0].pointer, gradients[1].pointer, gradients[2].pointer,
                    space.pointer)
                note(o, lse, gradients[0], gradients[1], gradients[2])
                if dtype == CK_BF16 {
                    let bytes = ck_attention_bf16_scratch_bytes(B, N, 1, D)
                    let space = KernelBuffer(CK_F32, count: (bytes + 3) / 4)
                    ck_attention_bf16_forward(
                        B, N, 1, D, 0.2, x.pointer, gy.pointer, x.pointer, D, o.pointer, lse.floats,
                        space.pointer)
                    ck_attention_bf16_backward(
                        B, N, 1, D, 0.2, x.pointer, gy.pointer, x.pointer, D, o.pointer, lse.floats,
                        gy.pointer, gradients[0].pointer, gradients[1].pointer, gradients[2].pointer,
                        space.pointer)
                    note(o, lse, gradients[0], gradients[1], gradients[2])
                    precondition(space.guardHolds)
                }
                precondition(space.guardHolds && scratch.guardHolds)
            }
        }
        let g = KernelBuffer(CK_F32, normal: 500_001, seed: 5)
        hashes.append(ck_sum_of_squares(g.count, g.floats).bitPattern)
        return ck_hash(hashes.count * 8, hashes)
    }

    @Test func resultsDoNotDependOnThreads() async {
        await #expect(processExitsWith: .success) {
            ck_set_threads(1)
            let one = KernelThreadTests.hashOfResults()
            for threads: Int32 in [2, 3, 5] {
                ck_set_threads(threads)
                #expect(ck_threads() == threads)
                #expect(KernelThreadTests.hashOfResults() == one, "\(threads) threads")
            }
        }
    }
}
