// Operations on the flat parameter store, all in fp32.
#pragma once
#include "ck_types.h"

#ifdef __cplusplus
extern "C" {
#endif

/// Sum of squares in double precision, in an order that depends only on n (not on the number of threads). Not finite if
/// and only if an element is not finite or its square overflows double.
double ck_sum_of_squares(long n, const float *g);

/// AdamW (Loshchilov and Hutter, 2019), as torch.optim.AdamW, in one pass over n elements:
///   g ← gradientScale·g;  w ← w·(1 − lr·weightDecay);  m ← β1·m + (1−β1)·g;  v ← β2·v + (1−β2)·g²
///   w ← w − lr/(1−β1ᵗ) · m / (sqrt(v)/sqrt(1−β2ᵗ) + eps)
typedef struct {
    // In double precision, like PyTorch's settings: 1 − 0.999 in fp32 has a relative error of 1e-5.
    double lr, beta1, beta2, eps, weightDecay, gradientScale;
    double biasCorrection1, biasCorrection2;  // 1 − β1ᵗ, 1 − β2ᵗ
} ck_adamw;
void ck_adamw_step(const ck_adamw *settings, long n, float *w, const float *g, float *m, float *v);

/// average ← decay·average + (1 − decay)·w
void ck_ema_update(long n, float decay, const float *w, float *average);
/// y ← y·factor
void ck_scale(long n, float factor, float *y);
/// FNV-1a over 64-bit words of the bytes (each round also folds the high half into the low), for the replica check.
uint64_t ck_hash(size_t bytes, const void *data);

#ifdef __cplusplus
}
#endif
