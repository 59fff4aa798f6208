import CKernels
import Foundation
import Testing

/// GroupNorm in double precision, written as its definition.
private struct GroupNormReference {
    var y: [Double]
    var mean: [Double]
    var rstd: [Double]
    var gx: [Double]
    var ggamma: [Double]
    var gbeta: [Double]

    init(
        _ shape: ChannelShape, groups G: Int, eps: Double, silu: Bool, x: [Double], gamma: [Double],
        beta: [Double], gy: [Double]
    ) {
        let (B, P, C) = (shape.samples, shape.pixels, shape.channels)
        let width = C / G
        y = x
        gx = x
        mean = Array(repeating: 0, count: B * G)
        rstd = mean
        ggamma = Array(repeating: 0, count: C)
        gbeta = ggamma
        for b in 0..<B {
            for g in 0..<G {
                let indices = (0..<P).flatMap { p in (0..<width).map { (b * P + p) * C + g * width + $0 } }
                let count = Double(indices.count)
                let m = indices.reduce(0) { $0 + x[$1] } / count
                let variance = indices.reduce(0) { $0 + (x[$1] - m) * (x[$1] - m) } / count
                let r = 1 / sqrt(variance + eps)
                mean[b * G + g] = m
                rstd[b * G + g] = r
                var gNormals: [Double] = []
                var plain = 0.0
                var weighted = 0.0
                for index in indices {
                    let c = index % C
                    let normal = (x[index] - m) * r
                    let z = gamma[c] * normal + beta[c]
                    let s = 1 / (1 + exp(-z))
                    y[index] = silu ? z * s : z
                    let gz = gy[index] * (silu ? s * (1 + z * (1 - s)) : 1)
                    ggamma[c] += gz * normal
                    gbeta[c] += gz
                    let gNormal = gz * gamma[c]
                    gNormals.append(gNormal)
                    plain += gNormal / count
                    weighted += gNormal * normal / count
                }
                for (index, gNormal) in zip(indices, gNormals) {
                    gx[index] = r * (gNormal - plain - (x[index] - m) * r * weighted)
                }
            }
        }
    }
}

@Suite struct KernelGroupNormTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let shape: ChannelShape
        let groups: Int
        var testDescription: String { "\(shape.testDescription) in \(groups)" }
    }

    static let cases = [
        Case(shape: ChannelShape(1, 1, 4), groups: 2),
        Case(shape: ChannelShape(2, 1, 32), groups: 1),
        Case(shape: ChannelShape(3, 35, 30), groups: 10),
        Case(shape: ChannelShape(1, 700, 24), groups: 3),
        Case(shape: ChannelShape(5, 64, 224), groups: 32),
        // Groups of 30 channels cross the boundary of the kernel's tile of 256.
        Case(shape: ChannelShape(2, 70, 300), groups: 10),
    ]

    private func check(
        _ test: Case, dtype: ck_dtype, silu: Bool, addend: Addend, mean: Float = 0, tolerance: Double = 4e-6
    ) {
        let (shape, G) = (test.shape, test.groups)
        let (B, P, C) = (shape.samples, shape.pixels, shape.channels)
        let x = KernelBuffer(dtype, normal: shape.count, seed: 1, mean: mean)
        let gy = KernelBuffer(dtype, normal: shape.count, seed: 2)
        let gamma = KernelBuffer(CK_F32, normal: C, seed: 3, mean: 1, std: 0.5)
        let beta = KernelBuffer(CK_F32, normal: C, seed: 4)
        let reference = GroupNormReference(
            shape, groups: G, eps: 1e-5, silu: silu, x: x.exact, gamma: gamma.exact, beta: beta.exact,
            gy: gy.exact)

        let scratch = KernelBuffer(CK_F32, count: (ck_group_norm_scratch_bytes(B, P, C, G) + 3) / 4)
        let y = KernelBuffer(dtype, count: shape.count)
        let means = KernelBuffer(CK_F32, count: B * G)
        let rstds = KernelBuffer(CK_F32, count: B * G)
        ck_group_norm_forward(
            dtype, B, P, C, G, 1e-5, silu ? 1 : 0, x.pointer, gamma.floats, beta.floats, y.pointer,
            means.floats, rstds.floats, scratch.pointer)
        let scale = max(1, Double(abs(mean)))  // the rounding error of x itself is 6e-8 of this
        expectClose(means, reference.mean, tolerance: 1e-6, "mean")
        expectClose(rstds, reference.rstd, tolerance: 4e-6, "rstd")
        expectClose(y, reference.y, tolerance: tolerance * scale / 8 + 2e-6, scale: 4, "y")
        #expect(scratch.guardHolds)

        let (gx, added, addedValues) = addend.make(dtype, shape.count)
        let ggamma = KernelBuffer(CK_F32, count: C)
        let gbeta = KernelBuffer(CK_F32, count: C)
        for pass in 0..<2 {  // the second pass accumulates the same gradients, and recomputes gx
            let target = pass == 0 ? gx : KernelBuffer(dtype, count: shape.count)
            ck_group_norm_backward(
                dtype, B, P, C, G, silu ? 1 : 0, x.pointer, gamma.floats, beta.floats, means.floats,
                rstds.floats, gy.pointer, pass == 0 ? added?.pointer : nil, target.pointer, ggamma.floats,
                gbeta.floats, pass == 0 ? 0 : 1, scratch.pointer)
            let expected = zip(reference.gx, addedValues).map { $0 + (pass == 0 ? $1 : 0) }
            expectClose(target, expected, tolerance: tolerance * scale, scale: 4, "gx")
        }
        let rows = sqrt(Double(B * P)) * 4
        expectClose(
            ggamma, reference.ggamma.map { 2 * $0 }, tolerance: tolerance * scale, scale: rows, "ggamma")
        expectClose(gbeta, reference.gbeta.map { 2 * $0 }, tolerance: tolerance * scale, scale: rows, "gbeta")
        #expect(scratch.guardHolds)
    }

    @Test(arguments: Element.allCases, cases)
    func agreesWithDefinition(_ element: Element, _ test: Case) {
        for silu in [false, true] {
            for addend in Addend.allCases {
                check(test, dtype: element.dtype, silu: silu, addend: addend)
            }
        }
    }

    /// With plain sums of squares, a variance of 1 at a mean of 1000 would have no correct digit.
    @Test func largeMeanDoesNotCancel() {
        for (P, C, G) in [(1000, 32, 4), (64, 224, 32), (4096, 8, 2)] {
            let test = Case(shape: ChannelShape(2, P, C), groups: G)
            check(test, dtype: CK_F32, silu: true, addend: .none, mean: 1000, tolerance: 4e-7)
        }
    }

    /// The row relative to which sums are computed may be an outlier.
    @Test func outlierInTheFirstRow() {
        let (P, C, G) = (512, 32, 4)
        let x = KernelBuffer(CK_F32, normal: P * C, seed: 1, std: 1e-3)
        for c in 0..<C { x[c] = 1000 }
        let ones = KernelBuffer(CK_F32, Array(repeating: 1, count: C))
        let zeros = KernelBuffer(CK_F32, count: C)
        let reference = GroupNormReference(
            ChannelShape(1, P, C), groups: G, eps: 1e-5, silu: false, x: x.exact, gamma: ones.exact,
            beta: zeros.exact, gy: x.exact)
        let scratch = KernelBuffer(CK_F32, count: (ck_group_norm_scratch_bytes(1, P, C, G) + 3) / 4)
        let y = KernelBuffer(CK_F32, count: P * C)
        let means = KernelBuffer(CK_F32, count: G)
        let rstds = KernelBuffer(CK_F32, count: G)
        ck_group_norm_forward(
            CK_F32, 1, P, C, G, 1e-5, 0, x.pointer, ones.floats, zeros.floats, y.pointer, means.floats,
            rstds.floats, scratch.pointer)
        expectClose(means, reference.mean, tolerance: 1e-6, scale: 44)  // scaled by the standard deviation
        expectClose(rstds, reference.rstd, tolerance: 3e-5, scale: 0)
    }

    @Test func parametersMayBeFrozen() {
        let (B, P, C, G) = (2, 9, 16, 4)
        let x = KernelBuffer(CK_F32, normal: B * P * C, seed: 1)
        let gamma = KernelBuffer(CK_F32, normal: C, seed: 3)
        let means = KernelBuffer(CK_F32, count: B * G)
        let rstds = KernelBuffer(CK_F32, Array(repeating: 1, count: B * G))
        let scratch = KernelBuffer(CK_F32, count: (ck_group_norm_scratch_bytes(B, P, C, G) + 3) / 4)
        let gradients = (0..<2).map { _ in KernelBuffer(CK_F32, count: B * P * C) }
        let parameters = (0..<2).map { _ in KernelBuffer(CK_F32, count: C) }
        for frozen in [false, true] {
            ck_group_norm_backward(
                CK_F32, B, P, C, G, 1, x.pointer, gamma.floats, gamma.floats, means.floats, rstds.floats,
                x.pointer, nil, gradients[frozen ? 1 : 0].pointer, frozen ? nil : parameters[0].floats,
                frozen ? nil : parameters[1].floats, 0, scratch.pointer)
        }
        #expect(gradients[0].bytes == gradients[1].bytes)
        #expect(gradients[0].values.contains { $0 != 0 })
    }
}
