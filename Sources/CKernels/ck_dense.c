// fp64 matrices with OpenBLAS and its LAPACK: products and eigenvalues, on the calling thread.
#include "ck_dense.h"

#include <cblas.h>
#include <stdlib.h>

#include "ck_parallel.h"

// LAPACK's Fortran interface; Debian packages its header separately from OpenBLAS. The last two arguments are the
// lengths of the strings.
extern void dsyevd_(const char *jobz, const char *uplo, const int *n, double *a, const int *lda, double *w,
                    double *work, const int *lwork, int *iwork, const int *liwork, int *info, size_t, size_t);

void ck_dgemm(int transA, int transB, long M, long N, long K, double alpha, const double *A, long lda,
              const double *B, long ldb, double beta, double *C, long ldc) {
    cblas_dgemm(CblasRowMajor, transA ? CblasTrans : CblasNoTrans, transB ? CblasTrans : CblasNoTrans, (int)M,
                (int)N, (int)K, alpha, A, (int)lda, B, (int)ldb, beta, C, (int)ldc);
}

int ck_symmetric_eigen(long size, int vectors, double *A, double *values) {
    int n = (int)size, lwork = -1, liwork = -1, info = 0, firstInt = 0;
    double first = 0;
    const char *job = vectors ? "V" : "N";
    dsyevd_(job, "U", &n, A, &n, values, &first, &lwork, &firstInt, &liwork, &info, 1, 1);
    if (info) return info;
    lwork = (int)first, liwork = firstInt;
    double *work = malloc(sizeof *work * (size_t)lwork);
    int *integers = malloc(sizeof *integers * (size_t)liwork);
    if (!work || !integers) {
        free(work), free(integers);
        return CK_NO_MEMORY;
    }
    dsyevd_(job, "U", &n, A, &n, values, work, &lwork, integers, &liwork, &info, 1, 1);
    free(work), free(integers);
    return info;
}
