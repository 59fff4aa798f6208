import CKernels

// B: samples, N: entries of a table, D: width of an entry.

extension Tape {
    /// y[b] = table[labels[b]]: the learned vector of each sample's class, torch.nn.Embedding.
    ///
    /// The gradient of an entry is the sum over the samples that selected it, in their order.
    ///
    /// - Parameters:
    ///   - labels: [B], fp32; whole numbers in 0..<N
    ///   - table: [N, D]
    /// - Returns: [B, D], of the tape's type
    package func embedding(_ labels: Tensor, _ table: Parameter) -> Tensor {
        use(table)
        let (B, N, D) = (labels.count, table.shape[0], table.shape[1])
        precondition(labels.shape == [B] && labels.dtype == .float32, "labels \(labels.shape)")
        let y = make([B, D], dtype: dtype, needsGradient: recordsGradients)
        let store = table.store
        record(table.name, .elementwise, reads: [labels], writes: [y]) { _ in
            ck_embedding_forward(
                store.matrixType.kernel, y.dtype.kernel, B, N, D, labels.floats.baseAddress, table.matrix,
                y.pointer)
        }
        differentiate(y) { gy in
            self.record(
                table.name, .elementwise, reads: [labels, gy], writes: [], gradientsOf: [table]
            ) { context in
                ck_embedding_backward(
                    gy.dtype.kernel, B, N, D, labels.floats.baseAddress, gy.pointer,
                    table.gradient.baseAddress, context.accumulatesGradients ? 1 : 0)
            }
        }
        return y
    }
}
