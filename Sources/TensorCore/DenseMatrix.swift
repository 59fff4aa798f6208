import CKernels

/// fp64 matrix algebra for statistics, row-major. Calls run on the calling thread unless noted otherwise.
/// With `Processor.concurrently` each thread computes separate parts, so the results do not depend on the
/// number of threads.
package enum DenseMatrix {
    /// C [M, N] = op(A)·op(B) + beta·C; op(A) is [M, K], op(B) is [K, N].
    ///
    /// - Parameter transposed: whether A and B are stored transposed.
    package static func multiply(
        _ A: UnsafePointer<Double>, rowLength lda: Int, _ B: UnsafePointer<Double>, rowLength ldb: Int,
        transposed: (a: Bool, b: Bool) = (false, false), M: Int, N: Int, K: Int, beta: Double = 0,
        into C: UnsafeMutablePointer<Double>, rowLength ldc: Int
    ) {
        ck_dgemm(
            transposed.a ? 1 : 0, transposed.b ? 1 : 0, M, N, K, 1, A, lda, B, ldb, beta, C, ldc)
    }

    /// A·B of square matrices [n, n], on all threads.
    package static func product(_ A: [Double], _ B: [Double], size n: Int) -> [Double] {
        precondition(A.count == n * n && B.count == n * n, "square matrices of \(n) rows")
        let part = 128
        return [Double](unsafeUninitializedCapacity: n * n) { C, count in
            Processor.concurrently((n + part - 1) / part) { index in
                let first = index * part
                A.withUnsafeBufferPointer { A in
                    multiply(
                        A.baseAddress! + first * n, rowLength: n, B, rowLength: n, M: min(part, n - first),
                        N: n, K: n, into: C.baseAddress! + first * n, rowLength: n)
                }
            }
            count = n * n
        }
    }

    /// The transpose of a square matrix [n, n].
    package static func transposed(_ A: [Double], size n: Int) -> [Double] {
        var result = A
        for i in 0..<n { for j in 0..<n { result[j * n + i] = A[i * n + j] } }
        return result
    }

    /// Eigenvalues of a symmetric matrix [n, n] in ascending order and, if `vectors` is set, its eigenvectors
    /// as the rows of a second matrix.
    ///
    /// - Returns: nil if LAPACK's divide-and-conquer algorithm (dsyevd) does not converge, or if A contains
    ///   NaN or infinity.
    package static func symmetricEigen(
        _ A: [Double], size n: Int, vectors: Bool
    ) -> (values: [Double], vectors: [Double])? {
        precondition(A.count == n * n, "a square matrix of \(n) rows")
        guard A.allSatisfy(\.isFinite) else { return nil }
        var work = A
        var values = [Double](repeating: 0, count: n)
        let info = ck_symmetric_eigen(n, vectors ? 1 : 0, &work, &values)
        return info == 0 ? (values, vectors ? work : []) : nil
    }
}
