import CKernels

/// The code index of each quantized vector; valid after a run.
package final class CodeIndices {
    package internal(set) var values: [Int32]
    init(count: Int) { values = Array(repeating: 0, count: count) }
}

extension Tape {
    /// Replaces each vector by the nearest vector of a codebook, in Euclidean distance (van den Oord et al.,
    /// 2017). The gradient with respect to x uses the straight-through estimator; the codebook receives no
    /// gradient.
    ///
    /// - Parameters:
    ///   - x: [..., D], fp32
    ///   - codebook: [K, D]
    /// - Returns: x's shape, and the index of each code
    package func nearestCode(_ x: Tensor, codebook: Parameter) -> (Tensor, CodeIndices) {
        use(codebook)
        let (K, D) = (codebook.shape[0], codebook.shape[1])
        precondition(x.shape.last == D && x.dtype == .float32, "\(codebook.name): codes for \(x.shape)")
        let rows = x.count / D
        let indices = CodeIndices(count: rows)
        let y = make(x.shape, dtype: .float32, needsGradient: x.needsGradient)
        record(codebook.name, .elementwise, reads: [x], writes: [y]) { _ in
            let codes = codebook.values
            ck_nearest_code(rows, K, D, x.floats.baseAddress, codes.baseAddress, &indices.values)
            let out = y.floats
            for row in 0..<rows {
                let code = Int(indices.values[row]) * D
                for d in 0..<D { out[row * D + d] = codes[code + d] }
            }
        }
        differentiate(y) { gy in self.contribute(gy, to: x) }
        return (y, indices)
    }
}
