import CKernels
import Foundation
import TensorCore
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
        // More than one block of keys, and a query block that is not full.
        Case(samples: 1, tokens: 530, heads: 1, headSize: 16),
    ]

    /// q, k, v, o and their gradients [B, N, heads, D] in double. The backward pass takes o as the forward pass has
    /// stored it: sum(go·o) stands for the mean of the scores' gradients, and inherits o's rounding.
    private struct Reference {
        var o: [Double]
        var lse: [Double]
        var gq: [Double]
        var gk: [Double]
        var gv: [Double]

        init(
            _ test: Case, scale: Double, q: [Double], k: [Double], v: [Double], go: [Double],
            storedO: [Double]? = nil
        ) {
            let (N, D, heads) = (test.tokens, test.headSize, test.heads)
            o = Array(repeating: 0, count: q.count)
            lse = Array(repeating: 0, count: test.samples * heads * N)
            (gq, gk, gv) = (o, o, o)
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
                            }
                        }
                    }
                }
            }
        }
    }

    @Test(arguments: Element.allCases, cases)
    func agreesWithDefinition(_ element: Element, _ test: Case) {
        let dtype = element.dtype
        let (B, N, heads, D) = (test.samples, test.tokens, test.heads, test.headSize)
        let width = heads * D
        let stride = test.packed ? 3 * width : width
        let scale = 1 / sqrt(Double(D))
        // Three operands in one tensor (columns 0, width, 2·width) or in three.
        let inputs: [KernelBuffer]
        let gradients: [KernelBuffer]
        if test.packed {
            inputs = [KernelBuffer(dtype, normal: B * N * stride, seed: 1, std: 2)]
            gradients = [KernelBuffer(dtype, count: B * N * stride)]
        } else {
            inputs = (1...3).map { KernelBuffer(dtype, normal: B * N * stride, seed: $0, std: 2) }
            gradients = (1...3).map { _ in KernelBuffer(dtype, count: B * N * stride) }
        }
        func pointer(_ buffers: [KernelBuffer], _ operand: Int) -> UnsafeMutableRawPointer {
            test.packed ? buffers[0].pointer + operand * width * buffers[0].size : buffers[operand].pointer
        }
        func dense(_ buffers: [KernelBuffer], _ operand: Int) -> [Double] {
            (0..<B * N * width).map { index in
                let at = index / width * stride + index % width
                return Double(test.packed ? buffers[0][at + operand * width] : buffers[operand][at])
            }
        }
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

    /// Scores far beyond exp's range: only the maximum's subtraction saves them.
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
        // A score of some thousands is known to about 1e-3 in fp32, and so is a probability.
        expectClose(o, reference.o, tolerance: 5e-3)
        expectClose(lse, reference.lse, tolerance: 1e-6)
    }

    /// Scratch is for a long sequence what it is for a short one, times its length.
    @Test func memoryGrowsWithTheSequence() {
        let short = ck_attention_scratch_bytes(1, 4096, 1, 64)
        let long = ck_attention_scratch_bytes(1, 16384, 1, 64)
        #expect(long <= 4 * short)
    }
}
