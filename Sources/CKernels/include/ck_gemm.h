// fp32 matrix product on OpenBLAS, with its rows divided among our own threads.
#pragma once
#include "ck_types.h"

#ifdef __cplusplus
extern "C" {
#endif

/// C [M, N] = alpha·op(A)·op(B) + beta·C, row-major; op(A) is [M, K], op(B) is [K, N].
void ck_sgemm(int transA, int transB, long M, long N, long K, float alpha, const float *A, long lda,
              const float *B, long ldb, float beta, float *C, long ldc);
/// The kernels selected by OpenBLAS, e.g. "Cooperlake", for display.
const char *ck_gemm_kernels(void);
/// Writes the processor's widest vector instruction set to `text`, e.g. "AVX-512 (BF16, VNNI)", for display.
void ck_processor_features(char *text, size_t size);
/// Width in bits of the widest vectors with fused multiply-add that our own loops use: 512, 256, or 128 for anything
/// less.
int ck_vector_bits(void);
/// Cost of a product of bf16 numbers on this processor, relative to a product of fp32 numbers.
double ck_bf16_cost(void);
/// 1 if the processor multiplies bf16 natively (AVX512_BF16 or AMX) and oneDNN is not restricted from using it.
int ck_has_native_bf16(void);

#ifdef __cplusplus
}
#endif
