import CKernels
import Foundation
import Testing

@Suite struct KernelAttentionTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let samples: Int
        let tokens: Int
        let heads: Int
        let headSize: Int
        /// q, k and v are columns of one tensor.
        var packed = false
        var testDescription: String {
            "\(samples)×\(tokens), \(heads) heads of \(headSize)\(packed ? " packed" : "")"
        }
    }

    static let cases = [
        Case(samples: 1, tokens: 1, heads: 1, headSize: 8),
        Case(samples: 2, tokens: 16, heads: 3, headSize: 8),
        Case(samples: 1, tokens: 130, heads: 2, headSize: 33, packed: true),
        Case(samples: 3, tokens: 49, heads: 1, headSize: 40, packed: true),
        // More than one block of keys, and a partial block of queries.
        Case(samples: 1, tokens: 530, heads: 1, headSize: 16),
    ]

    /// Partial tiles of the bf16 products in each dimension, and more than one block of queries.
    static let ragged = [
        Case(samples: 2, tokens: 7, heads: 2, headSize: 1),
        Case(samples: 1, tokens: 64, heads: 2, headSize: 64, packed: true),
        Case(samples: 1, tokens: 101, heads: 3, headSize: 15, packed: true),
        Case(samples: 1, tokens: 147, heads: 2, headSize: 70),
        Case(samples: 1, tokens: 35, heads: 1, headSize: 161, packed: true),
    ]

    /// q, k, v, o and their gradients [B, N, heads, D] in double. The backward pass uses o as stored by the
    /// forward pass: sum(go·o) is the mean of the scores' gradients, and inherits o's rounding.
    private struct Reference {
        var o: [Double]
        var lse: [Double]
        var gq: [Double]
        var gk: [Double]
        var gv: [Double]
        /// For o, gq, gk and gv: the sum of the magnitudes of the terms of each element.
        var magnitudes: [[Double]]

        init(
            _ test: Case, scale: Double, q: [Double], k: [Double], v: [Double], go: [Double],
            storedO: [Double]? = nil
        ) {
            let (N, D, heads) = (test.tokens, test.headSize, test.heads)
            o = Array(repeating: 0, count: q.count)
            lse = Array(repeating: 0, count: test.samples * heads * N)
            (gq, gk, gv) = (o, o, o)
            magnitudes = [o, o, o, o]
            for b in 0..<test.samples {
                for h in 0..<heads {
                    func at(_ n: Int) -> Int { ((b * N + n) * heads + h) * D }
                    for i in 0..<N {
                        let scores = (0..<N).map { j in
                            (0..<D).reduce(0) { $0 + q[at(i) + $1] * k[at(j) + $1] } * scale
                        }
                        let maximum = scores.max()!
                        let sum = scores.reduce(0) { $0 + exp($1 - maximum) }
                        lse[(b * heads + h) * N + i] = maximum + log(sum)
                        let p = scores.map { exp($0 - maximum) / sum }
                        let gp = (0..<N).map { j in
                            (0..<D).reduce(0) { $0 + go[at(i) + $1] * v[at(j) + $1] }
                        }
                        var mean = zip(p, gp).reduce(0) { $0 + $1.0 * $1.1 }
                        if let storedO {
                            mean = (0..<D).reduce(0) { $0 + go[at(i) + $1] * storedO[at(i) + $1] }
                        }
                        for j in 0..<N {
                            let gs = p[j] * (gp[j] - mean) * scale
                            for d in 0..<D {
                                o[at(i) + d] += p[j] * v[at(j) + d]
                                gq[at(i) + d] += gs * k[at(j) + d]
                                gk[at(j) + d] += gs * q[at(i) + d]
                                gv[at(j) + d] += p[j] * go[at(i) + d]
                                magnitudes[0][at(i) + d] += abs(p[j] * v[at(j) + d])
                                magnitudes[1][at(i) + d] += abs(gs * k[at(j) + d])
                                magnitudes[2][at(j) + d] += abs(gs * q[at(i) + d])
                                magnitudes[3][at(j) + d] += abs(p[j] * go[at(i) + d])
                            }
                        }
                    }
                }
            }
        }
    }

    /// q, k, v and memory for their gradients: columns 0, width and 2·width of one tensor each, or three
    /// tensors.
    private struct Operands {
        let test: Case
        let stride: Int
        let inputs: [KernelBuffer]
        let gradients: [KernelBuffer]

        /// - Parameter gap: unused columns at the end of each token, filled with NaN.
        init(_ dtype: ck_dtype, _ test: Case, gap: Int = 0) {
            self.test = test
            let width = test.heads * test.headSize
            stride = (test.packed ? 3 * width : width) + gap
            let count = test.samples * test.tokens * stride
            inputs = (1...(test.packed ? 1 : 3)).map { KernelBuffer(dtype, normal: count, seed: $0, std: 2) }
            gradients = inputs.map { _ in KernelBuffer(dtype, count: count) }
            for at in 0..<count where at % stride >= stride - gap {
                for buffer in inputs + gradients { buffer[at] = .nan }
            }
        }

        func pointer(_ buffers: [KernelBuffer], _ operand: Int) -> UnsafeMutableRawPointer {
            let width = test.heads * test.headSize
            return test.packed
                ? buffers[0].pointer + operand * width * buffers[0].size : buffers[operand].pointer
        }

        func dense(_ buffers: [KernelBuffer], _ operand: Int) -> [Double] {
            let width = test.heads * test.headSize
            return (0..<test.samples * test.tokens * width).map { index in
                let at = index / width * stride + index % width
                return Double(test.packed ? buffers[0][at + operand * width] : buffers[operand][at])
            }
        }
    }

    @Test(arguments: Element.allCases, cases)
    func agreesWithDefinition(_ element: Element, _ test: Case) {
        let dtype = element.dtype
        let (B, N, heads, D) = (test.samples, test.tokens, test.heads, test.headSize)
        let width = heads * D
        let scale = 1 / sqrt(Double(D))
        let operands = Operands(dtype, test)
        let (inputs, gradients, stride) = (operands.inputs, operands.gradients, operands.stride)
        let (pointer, dense) = (operands.pointer, operands.dense)
        let go = KernelBuffer(dtype, normal: B * N * width, seed: 9)
        let scratch = KernelBuffer(CK_F32, count: (ck_attention_scratch_bytes(B, N, heads, D) + 3) / 4)
        let o = KernelBuffer(dtype, count: B * N * width)
        let lse = KernelBuffer(CK_F32, count: B * heads * N)
        ck_attention_forward(
            dtype, B, N, heads, D, Float(scale), pointer(inputs, 0), pointer(inputs, 1), pointer(inputs, 2),
            stride, o.pointer, lse.floats, scratch.pointer)
        let reference = Reference(
            test, scale: scale, q: dense(inputs, 0), k: dense(inputs, 1), v: dense(inputs, 2), go: go.exact,
            storedO: o.exact)
        expectClose(o, reference.o, tolerance: 5e-6, "o")
        expectClose(lse, reference.lse, tolerance: 2e-6, "lse")
        #expect(scratch.guardHolds)

        ck_attention_backward(
            dtype, B, N, heads, D, Float(scale), pointer(inputs, 0), pointer(inputs, 1), pointer(inputs, 2),
            stride, o.pointer, lse.floats, go.pointer, pointer(gradients, 0), pointer(gradients, 1),
            pointer(gradients, 2), scratch.pointer)
        #expect(scratch.guardHolds && gradients.allSatisfy { $0.guardHolds })
        for (operand, expected) in [reference.gq, reference.gk, reference.gv].enumerated() {
            let found = KernelBuffer(dtype, dense(gradients, operand).map(Float.init))
            expectClose(found, expected, tolerance: 2e-5, "gradient \(operand)")
        }
    }

    /// The only difference is rounding to bf16: of probabilities for o and gv, of the scores' gradients for
    /// gq and gk, each at most 2⁻⁸ of a term.
    @Test(arguments: cases + ragged)
    func bf16ProductsRoundOnlyTheirFactors(_ test: Case) {
        let (B, N, heads, D) = (test.samples, test.tokens, test.heads, test.headSize)
        let width = heads * D
        let scale = 1 / sqrt(Double(D))
        let operands = Operands(CK_BF16, test, gap: 3)
        let (inputs, gradients, stride) = (operands.inputs, operands.gradients, operands.stride)
        let (pointer, dense) = (operands.pointer, operands.dense)
        let go = KernelBuffer(CK_BF16, normal: B * N * width, seed: 9)
        let scratch = Self.bf16Scratch(B, N, heads, D)
        let o = KernelBuffer(CK_BF16, count: B * N * width)
        let lse = KernelBuffer(CK_F32, count: B * heads * N)
        ck_attention_bf16_forward(
            B, N, heads, D, Float(scale), pointer(inputs, 0), pointer(inputs, 1), pointer(inputs, 2), stride,
            o.pointer, lse.floats, scratch.pointer)
        let reference = Reference(
            test, scale: scale, q: dense(inputs, 0), k: dense(inputs, 1), v: dense(inputs, 2), go: go.exact,
            storedO: o.exact)
        let slack = reference.magnitudes.map { $0.map { $0 * 0x1p-8 } }
        expectClose(o, reference.o, tolerance: 5e-6, slack: slack[0], "o")
        expectClose(lse, reference.lse, tolerance: 2e-6, "lse")
        #expect(scratch.guardHolds)

        // The backward pass must not depend on scratch content of the forward pass.
        for index in 0..<scratch.count { scratch[index] = .nan }
        ck_attention_bf16_backward(
            B, N, heads, D, Float(scale), pointer(inputs, 0), pointer(inputs, 1), pointer(inputs, 2), stride,
            o.pointer, lse.floats, go.pointer, pointer(gradients, 0), pointer(gradients, 1),
            pointer(gradients, 2), scratch.pointer)
        #expect(scratch.guardHolds && gradients.allSatisfy { $0.guardHolds })
        for (operand, expected) in [reference.gq, reference.gk, reference.gv].enumerated() {
            let found = KernelBuffer(CK_BF16, dense(gradients, operand).map(Float.init))
            expectClose(found, expected, tolerance: 2e-5, slack: slack[1 + operand], "gradient \(operand)")
        }
        for buffer in gradients {
            let gaps = (0..<buffer.count).filter { $0 % stride >= stride - 3 }
            #expect(gaps.allSatisfy { buffer[$0].isNaN }, "written between the tokens")
        }
    }

    /// Scratch memory of the bf16 kernels, filled with NaN.
    private static func bf16Scratch(_ B: Int, _ N: Int, _ heads: Int, _ D: Int) -> KernelBuffer {
        let bytes = ck_attention_bf16_scratch_bytes(B, N, heads, D)
        return KernelBuffer(CK_F32, Array(repeating: Float.nan, count: (bytes + 3) / 4))
    }

    /// A NaN in one query or key propagates to all results that depend on it, and to no others.
    @Test func bf16ProductsKeepNaN() {
        let (N, D) = (70, 16)
        let inputs = (1...3).map { KernelBuffer(CK_BF16, normal: N * D, seed: $0) }
        let o = KernelBuffer(CK_BF16, count: N * D)
        let lse = KernelBuffer(CK_F32, count: N)
        func run() {
            ck_attention_bf16_forward(
                1, N, 1, D, 0.25, inputs[0].pointer, inputs[1].pointer, inputs[2].pointer, D, o.pointer,
                lse.floats, Self.bf16Scratch(1, N, 1, D).pointer)
        }
        inputs[0][5 * D + 3] = .nan
        run()
        for n in 0..<N {
            #expect(lse[n].isNaN == (n == 5))
            #expect((0..<D).allSatisfy { o[n * D + $0].isNaN == (n == 5) })
        }
        inputs[0][5 * D + 3] = 0
        inputs[1][69 * D] = .nan
        run()
        #expect(lse.values.allSatisfy(\.isNaN) && o.values.allSatisfy(\.isNaN))
    }

    /// Scores far beyond the range of exp: the maximum must be subtracted first.
    @Test func largeScoresDoNotOverflow() {
        let (N, D) = (600, 8)
        let q = KernelBuffer(CK_F32, normal: N * D, seed: 1, std: 30)
        let k = KernelBuffer(CK_F32, normal: N * D, seed: 2, std: 30)
        let v = KernelBuffer(CK_F32, normal: N * D, seed: 3)
        let o = KernelBuffer(CK_F32, count: N * D)
        let lse = KernelBuffer(CK_F32, count: N)
        let scratch = KernelBuffer(CK_F32, count: (ck_attention_scratch_bytes(1, N, 1, D) + 3) / 4)
        ck_attention_forward(
            CK_F32, 1, N, 1, D, 1, q.pointer, k.pointer, v.pointer, D, o.pointer, lse.floats, scratch.pointer)
        let reference = Reference(
            Case(samples: 1, tokens: N, heads: 1, headSize: D), scale: 1, q: q.exact, k: k.exact, v: v.exact,
            go: v.exact)
        // In fp32, a score of several thousand has an error of about 1e-3, and so does a probability.
        expectClose(o, reference.o, tolerance: 5e-3)
        expectClose(lse, reference.lse, tolerance: 1e-6)
    }

    @Test func largeScoresDoNotOverflowInBF16() {
        let (N, D) = (600, 8)
        let (q, k, v) = (
            KernelBuffer(CK_BF16, normal: N * D, seed: 1, std: 30),
            KernelBuffer(CK_BF16, normal: N * D, seed: 2, std: 30),
            KernelBuffer(CK_BF16, normal: N * D, seed: 3)
        )
        let o = KernelBuffer(CK_BF16, count: N * D)
        let lse = KernelBuffer(CK_F32, count: N)
        ck_attention_bf16_forward(
            1, N, 1, D, 1, q.pointer, k.pointer, v.pointer, D, o.pointer, lse.floats,
            Self.bf16Scratch(1, N, 1, D).pointer)
        let reference = Reference(
            Case(samples: 1, tokens: N, heads: 1, headSize: D), scale: 1, q: q.exact, k: k.exact, v: v.exact,
            go: v.exact)
        expectClose(o, reference.o, tolerance: 5e-3)
        expectClose(lse, reference.lse, tolerance: 1e-6)
    }

    /// Scratch memory grows linearly with the sequence length.
    @Test func memoryGrowsWithTheSequence() {
        let short = ck_attention_scratch_bytes(1, 4096, 1, 64)
        let long = ck_attention_scratch_bytes(1, 16384, 1, 64)
        #expect(long <= 4 * short)
        #expect(
            ck_attention_bf16_scratch_bytes(1, 16384, 1, 64)
                <= 4 * ck_attention_bf16_scratch_bytes(1, 4096, 1, 64))
    }
}
