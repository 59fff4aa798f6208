// fp64 matrices: products and symmetric eigenvalues, with OpenBLAS and its LAPACK. They run on the calling thread.
// Callers that use several threads assign each a separate part, so that results do not depend on the number of threads.
#pragma once
#include "ck_types.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { CK_NO_MEMORY = 1 << 30 };

/// C [M, N] = alpha·op(A)·op(B) + beta·C, row-major; op(A) is [M, K], op(B) is [K, N].
void ck_dgemm(int transA, int transB, long M, long N, long K, double alpha, const double *A, long lda,
              const double *B, long ldb, double beta, double *C, long ldc);

/// Eigenvalues, ascending, of a symmetric matrix A [size, size]. A is overwritten, with the eigenvectors as rows if
/// `vectors` is set. Returns 0, LAPACK's info, or CK_NO_MEMORY.
int ck_symmetric_eigen(long size, int vectors, double *A, double *values);

#ifdef __cplusplus
}
#endif
