// Softmax attention in blocks of query rows: memory grows with N, never with N².
#pragma once
#include "ck_types.h"

#ifdef __cplusplus
extern "C" {
#endif

/// q, k, v, o are [B, N, heads·D]: head h of token n starts at (b·N + n)·stride + h·D, with `stride` elements from
/// token to token (heads·D where they stand alone, more where q, k, v are columns of one tensor). o is dense.
size_t ck_attention_scratch_bytes(long B, long N, long heads, long D);

/// o = softmax(scale·q·kᵀ)·v; lse [B, heads, N] is written: the log of each row's sum of exponentials.
void ck_attention_forward(ck_dtype dtype, long B, long N, long heads, long D, float scale, const void *q,
                          const void *k, const void *v, long stride, void *o, float *lse, void *scratch);

/// gq, gk, gv are written (same stride as q, k, v); o and lse are the forward pass's.
void ck_attention_backward(ck_dtype dtype, long B, long N, long heads, long D, float scale, const void *q,
                           const void *k, const void *v, long stride, const void *o, const float *lse,
                           const void *go, void *gq, void *gk, void *gv, void *scratch);

/// The same for bf16 tensors, with products of bf16 numbers where the processor has AVX512_BF16, and as above
/// elsewhere. As in flash attention, probabilities and the scores' gradients are rounded to bf16 before they multiply
/// (a relative 2⁻⁸ at most); sums, softmax and lse are fp32. `scale` is positive.
size_t ck_attention_bf16_scratch_bytes(long B, long N, long heads, long D);
void ck_attention_bf16_forward(long B, long N, long heads, long D, float scale, const void *q, const void *k,
                               const void *v, long stride, void *o, float *lse, void *scratch);
void ck_attention_bf16_backward(long B, long N, long heads, long D, float scale, const void *q, const void *k,
                                const void *v, long stride, const void *o, const float *lse, const void *go,
                                void *gq, void *gk, void *gv, void *scratch);

#ifdef __cplusplus
}
#endif
