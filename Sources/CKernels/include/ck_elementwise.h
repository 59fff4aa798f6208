// Elementwise operations, forward next to backward. `n` is the number of elements.
#pragma once
#include "ck_types.h"

#ifdef __cplusplus
extern "C" {
#endif

void ck_cast(ck_dtype from, ck_dtype to, long n, const void *x, void *y);
void ck_fill(ck_dtype dtype, long n, float value, void *y);
/// y = alpha·a + beta·b; y may be a or b. b may be NULL when beta is 0.
void ck_add(ck_dtype dtype, long n, float alpha, const void *a, float beta, const void *b, void *y);

/// y = x·sigmoid(x)
void ck_silu_forward(ck_dtype dtype, long n, const void *x, void *y);
/// gx = gy·silu'(x) + addend
void ck_silu_backward(ck_dtype dtype, long n, const void *x, const void *gy, const void *addend, void *gx);

/// y[b,p,c] = x[b,p,c] + t[b,c]; x is [B, P, C], t is [B, C], both of type `dtype`. Adds the time embedding.
void ck_add_channels_forward(ck_dtype dtype, long B, long P, long C, const void *x, const void *t, void *y);
/// gt[b,c] = sum over p of gy[b,p,c] + addend; gx is gy itself.
void ck_add_channels_backward(
    ck_dtype dtype, long B, long P, long C, const void *gy, const void *addend, void *gt);

/// y = x·(1 + s[b,c]) + t[b,c], where st is [B, 2C] = (scale s, shift t): resnet_time_scale_shift "scale_shift".
void ck_scale_shift_forward(ck_dtype dtype, long B, long P, long C, const void *x, const void *st, void *y);
/// gx = gy·(1 + s) + addend; gst = (sum_p gy·x, sum_p gy).
void ck_scale_shift_backward(ck_dtype dtype, long B, long P, long C, const void *x, const void *st,
                             const void *gy, const void *addend, void *gx, void *gst);

/// Inverted dropout. Sample b's mask is drawn with Philox4x32-10, with key (seed, layer) and counter (element/4,
/// samples[b], step), so it does not depend on rank and batch. An element is kept if u >= p; y = x/(1-p) or 0. The
/// backward pass is the same call on gy (plus addend).
void ck_dropout(ck_dtype dtype, long B, long perSample, float p, uint64_t seed, uint32_t layer, uint64_t step,
                const int64_t *samples, const void *x, const void *addend, void *y);

/// Sinusoidal embedding of t [B] into y [B, dim] (Ho et al. 2020; diffusers' get_timestep_embedding). half = dim/2;
/// frequency_i = exp(-ln(10000)·i / (half - shift)); (sin, cos), or (cos, sin) if flip is set. Angles are computed in
/// fp32 as in PyTorch; an odd dim is padded with a zero.
void ck_timestep_embedding(
    ck_dtype dtype, long B, long dim, const float *t, int flip_sin_to_cos, float freq_shift, void *y);

/// y[b] = table[labels[b]]: table [N, D], labels [B] (whole numbers in 0..<N), y [B, D].
void ck_embedding_forward(
    ck_dtype table_type, ck_dtype dtype, long B, long N, long D, const float *labels, const void *table, void *y);

/// The gradient of the table [N, D] in fp32: entry n is the sum of gy[b] over the samples b with label n. It replaces
/// the gradient, or is added to it if accumulates is set.
void ck_embedding_backward(
    ck_dtype dtype, long B, long N, long D, const float *labels, const void *gy, float *gradient, int accumulates);

#ifdef __cplusplus
}
#endif
