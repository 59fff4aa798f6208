import CKernels
import Dispatch
import TensorCore
import Testing

@Suite("Matrix product", .serialized) struct GemmTests {
    // (M, N, K): odd, thin, and large enough to be divided among threads.
    static let sizes = [
        (1, 1, 1), (3, 5, 7), (17, 1, 33), (1, 64, 9), (150, 90, 121), (96, 301, 64), (401, 24, 128),
    ]

    @Test("agrees with its definition", arguments: sizes.indices, [Int32(1), 2])
    func definition(_ index: Int, _ threads: Int32) {
        ck_set_threads(threads)
        let (M, N, K) = Self.sizes[index]
        var draw = Draw(UInt64(M * N * K))
        for transA in [false, true] {
            for transB in [false, true] {
                for (alpha, beta) in [(Float(1), Float(0)), (0.5, 1), (-2, 0.25)] {
                    // Row strides are larger than the row lengths; the gaps must stay unchanged.
                    let lda = (transA ? M : K) + 2
                    let ldb = (transB ? K : N) + 3
                    let ldc = N + 1
                    let a = draw.values((transA ? K : M) * lda)
                    let b = draw.values((transB ? N : K) * ldb)
                    let before = draw.values(M * ldc)
                    var c = before
                    ck_sgemm(
                        transA ? 1 : 0, transB ? 1 : 0, M, N, K, alpha, a, lda, b, ldb, beta, &c, ldc)
                    var expected = before.map { Sum(value: Double($0)) }
                    for m in 0..<M {
                        for n in 0..<N {
                            var sum = Sum()
                            sum.add(Double(beta) * Double(before[m * ldc + n]))
                            for k in 0..<K {
                                let left = transA ? a[k * lda + m] : a[m * lda + k]
                                let right = transB ? b[n * ldb + k] : b[k * ldb + n]
                                sum.add(Double(alpha) * Double(left) * Double(right))
                            }
                            expected[m * ldc + n] = sum
                        }
                    }
                    #expect(worstError(c, expected, CK_F32) <= 1, "transposes \(transA) \(transB)")
                }
            }
        }
    }

    @Test func `names what the processor can do`() {
        #expect(!String(cString: ck_gemm_kernels()).isEmpty)
        let features = Processor.features
        #expect(!features.isEmpty)
        #expect(ck_has_native_bf16() == (features.contains("BF16") || features.contains("AMX") ? 1 : 0))
    }

    @Test func `descriptions are whole on concurrent threads`() {
        let features = Processor.features
        let summary = Backend.fastest.summary
        DispatchQueue.concurrentPerform(iterations: 10_000) { _ in
            #expect(Processor.features == features && Backend.fastest.summary == summary)
        }
    }
}
