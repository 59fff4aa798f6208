// Softmax attention in blocks of query rows: memory is linear in N, not quadratic.
#pragma once
#include "ck_types.h"

#ifdef __cplusplus
extern "C" {
#endif

/// q, k, v, o are [B, N, heads·D]: head h of token n starts at (b·N + n)·stride + h·D, where `stride` is the number of
/// elements between tokens (heads·D for separate tensors, more if q, k, v are columns of one tensor). o is dense.
size_t ck_attention_scratch_bytes(long B, long N, long heads, long D);

/// Computes o = softmax(scale·q·kᵀ)·v and lse [B, heads, N], the logarithm of each row's sum of exponentials.
void ck_attention_forward(ck_dtype dtype, long B, long N, long heads, long D, float scale, const void *q,
                          const void *k, const void *v, long stride, void *o, float *lse, void *scratch);

/// Computes gq, gk, gv (with the stride of q, k, v) from o and lse of the forward pass.
void ck_attention_backward(ck_dtype dtype, long B, long N, long heads, long D, float scale, const void *q,
                           const void *k, const void *v, long stride, const void *o, const float *lse,
                           const void *go, void *gq, void *gk, void *gv, void *scratch);

/// The same for bf16 tensors. With AVX512_BF16 the products are computed in bf16; on other processors as above. As in
/// flash attention, probabilities and the gradients of the scores are rounded to bf16 before they are multiplied
/// (relative error at most 2⁻⁸); sums, softmax and lse are fp32. `scale` must be positive.
size_t ck_attention_bf16_scratch_bytes(long B, long N, long heads, long D);
void ck_attention_bf16_forward(long B, long N, long heads, long D, float scale, const void *q, const void *k,
                               const void *v, long stride, void *o, float *lse, void *scratch);
void ck_attention_bf16_backward(long B, long N, long heads, long D, float scale, const void *q, const void *k,
                                const void *v, long stride, const void *o, const float *lse, const void *go,
                                void *gq, void *gk, void *gv, void *scratch);

#ifdef __cplusplus
}
#endif
