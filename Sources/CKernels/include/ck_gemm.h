// fp32 matrix product on OpenBLAS, its rows split over our own threads.
#pragma once
#include "ck_types.h"

#ifdef __cplusplus
extern "C" {
#endif

/// C [M, N] = alpha·op(A)·op(B) + beta·C, row-major; op(A) is [M, K], op(B) is [K, N].
void ck_sgemm(int transA, int transB, long M, long N, long K, float alpha, const float *A, long lda,
              const float *B, long ldb, float beta, float *C, long ldc);
/// The kernels that OpenBLAS chose, e.g. "Cooperlake", and the processor's best vector set, for the user to read.
const char *ck_gemm_kernels(void);
const char *ck_processor_features(void);
/// Width of the widest vectors whose fused multiply-adds our own loops use: 512, 256, or 128 for anything less.
int ck_vector_bits(void);
/// What a product of bf16 numbers costs on this processor, in products of fp32 numbers.
double ck_bf16_cost(void);
/// 1 where the processor multiplies bf16 natively (AVX512_BF16 or AMX), and oneDNN is not kept from it.
int ck_has_native_bf16(void);

#ifdef __cplusplus
}
#endif
