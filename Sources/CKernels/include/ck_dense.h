// fp64 matrices: products and symmetric eigenvalues, on OpenBLAS and its LAPACK. They run on the calling thread; who
// wants more threads gives each its own part, so that results do not depend on their number.
#pragma once
#include "ck_types.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { CK_NO_MEMORY = 1 << 30 };

/// C [M, N] = alpha·op(A)·op(B) + beta·C, row-major; op(A) is [M, K], op(B) is [K, N].
void ck_dgemm(int transA, int transB, long M, long N, long K, double alpha, const double *A, long lda,
              const double *B, long ldb, double beta, double *C, long ldc);

/// Eigenvalues, ascending, of a symmetric matrix A [size, size], which is overwritten: by the eigenvectors, a row each,
/// where they are wanted. 0, or LAPACK's info, or CK_NO_MEMORY.
int ck_symmetric_eigen(long size, int vectors, double *A, double *values);

#ifdef __cplusplus
}
#endif
